// The model's parameters: what they are called, how they begin, and where they lie (dist/zero/layout.h).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "dist/device/arena.h"
#include "dist/zero/layout.h"
#include "quant/tensor/tensor.h"

namespace nibble {

enum class Initialization : uint8_t { normal, ones, zeros };

// What a layer says of a parameter that it adds.
struct ParameterDescription {
  std::string name;            // "blocks.3.attention.qkv.weight"
  std::vector<int64_t> shape;  // linear weights: [features out, features in]
  TensorUse use = TensorUse::matrix;
  bool decay = false;  // weight decay applies: linear weights, not embedding, head, norms or biases
  Initialization initialization = Initialization::normal;
  double init_std = 0;
  std::vector<TensorPart> parts = {};
  DType dtype = DType::bf16;  // of the stored weight, f32 or bf16
};

struct Parameter : TensorLayout {
  Initialization initialization = Initialization::normal;
  double init_std = 0;
};

class ParameterTable {
 public:
  // The parameters that are added from now on are gathered and reduced together. Without a call, all are.
  void begin_bucket(std::string name);
  // Adds a parameter behind all others and returns its tensor id, which is its position in the table.
  uint32_t add(ParameterDescription description);

  const std::vector<Parameter>& parameters() const { return parameters_; }
  const Parameter& operator[](uint32_t tensor_id) const { return parameters_[tensor_id]; }
  Layout layout() const;
  const std::vector<Bucket>& buckets() const { return buckets_; }
  // Returns the number of elements of a flat buffer, including the gaps between parameters, which are always zero.
  uint64_t flat_size() const { return flat_size_; }
  // Returns the parameter's part of a flat buffer, in its own shape. The buffer has a dtype and flat_size() elements;
  // or it is u8 and has the bytes of weights of different widths (Layout::weight_bytes()).
  Tensor view(const Tensor& flat, uint32_t tensor_id) const;

 private:
  std::vector<Parameter> parameters_;
  std::vector<Bucket> buckets_;
  std::vector<uint64_t> first_byte_;  // [parameters]: where its weights begin among those of all widths
  uint64_t flat_size_ = 0;
  uint64_t weight_bytes_ = 0;
};

// Takes memory for the weights of a layout: one flat buffer of their dtype, or of bytes if they have several.
Tensor allocate_weights(Arena& arena, const Layout& layout);

// Computes the initial values of elements [begin, end) of the flat buffer, as FP32. They are a pure function of (seed,
// tensor id, element).
void initialize(const ParameterTable& table, uint64_t seed, uint64_t begin, uint64_t end, float* values);

}  // namespace nibble
