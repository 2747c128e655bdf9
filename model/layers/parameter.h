// The model's parameters: names, shapes, and positions in the flat buffers of weights and gradients.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "quant/tensor/tensor.h"

namespace nibble {

enum class Initialization : uint8_t { normal, ones };

struct Parameter {
  std::string name;            // "blocks.3.attention.qkv.weight"
  std::vector<int64_t> shape;  // linear weights: [features out, features in]
  uint32_t tensor_id = 0;      // position in the table; keys this tensor's random numbers
  Initialization initialization = Initialization::normal;
  double init_std = 0;
  bool decay = false;   // weight decay applies: linear weights, not embedding, head or norms
  uint64_t offset = 0;  // first element in the flat buffers; a multiple of 16
  uint64_t count = 0;   // elements
};

class ParameterTable {
 public:
  // Adds a parameter and returns its tensor id.
  uint32_t add(std::string name, std::vector<int64_t> shape, Initialization initialization, double init_std,
               bool decay);

  const std::vector<Parameter>& parameters() const { return parameters_; }
  const Parameter& operator[](uint32_t tensor_id) const { return parameters_[tensor_id]; }
  // Returns the number of elements of a flat buffer, including the gaps between parameters, which are always zero.
  uint64_t flat_size() const { return flat_size_; }
  // Returns the parameter's part of a flat buffer, in its own shape.
  Tensor view(const Tensor& flat, uint32_t tensor_id) const;

 private:
  std::vector<Parameter> parameters_;
  uint64_t flat_size_ = 0;
};

// Computes the initial values of elements [begin, end) of the flat buffer, as FP32. They are a pure function of (seed,
// tensor id, element).
void initialize(const ParameterTable& table, uint64_t seed, uint64_t begin, uint64_t end, float* values);

}  // namespace nibble
