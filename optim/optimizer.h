// How weights move. An optimizer updates slices of named tensors and keeps named state arrays of them; it knows neither
// ranks nor models. OptimizerList has several, of which the first that takes a tensor has it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dist/device/arena.h"
#include "dist/zero/layout.h"
#include "dist/zero/placement.h"
#include "quant/tensor/tensor.h"

namespace nibble {

// Elements of a tensor that an optimizer updates on this rank, and where they begin. Positions are multiples of 8.
struct OwnedSlice {
  uint32_t tensor = 0;       // index in Layout::tensors()
  Range elements = {};       // of the tensor
  uint64_t gradient_at = 0;  // element of the rank's gradient
  uint64_t weight_byte = 0;  // of the weights
  uint64_t state_at = 0;     // element of each state array that has one value an element
};

// What a rank updates. The weights are those of the whole layout (Layout::weight_byte()); they and the gradient begin
// at multiples of 16 bytes.
struct Shard {
  Tensor weights;   // of one dtype [elements of the layout], or u8 [its weight bytes]
  Tensor gradient;  // f32 [elements that the rank owns], on the device of the weights
};

struct UpdateStep {
  uint64_t step = 0;  // counted from 0
  double learning_rate = 0;
  float grad_scale = 1;
  uint64_t seed = 0;
};

// State that a checkpoint keeps, of some of the slices.
struct StateArray {
  std::string name;                // "adam_m"
  uint32_t elements_a_value = 1;   // element e of a tensor has the value number e / elements_a_value of the tensor
  Tensor values;                   // of any dtype
  std::vector<OwnedSlice> slices;  // state_at / elements_a_value is where each begins among the values
  // Which of the tensors that the optimizer takes have values, on any rank; null: all.
  bool (*of)(const TensorLayout& tensor) = nullptr;
};

class Optimizer {
 public:
  virtual ~Optimizer() = default;

  virtual std::string_view name() const = 0;  // "adamw"
  virtual bool takes(const TensorLayout& tensor) const = 0;
  // Returns true if a matrix must not be cut, so that it is owned whole.
  virtual bool whole_matrices() const { return false; }

  // Takes memory for the state of these slices, in the measuring pass of the arena and again after commit(). The arena
  // may be on the CPU while weights and gradients are on a GPU if the optimizer allows for that.
  virtual void allocate(Arena& arena, const Layout& layout, std::vector<OwnedSlice> slices) = 0;

  // Sets the weights of all slices (and what they are rounded from), rounded to nearest even. `values` is the rank's
  // gradient in shape, f32 on the CPU.
  virtual void set_weights(std::span<const float> values, const Tensor& weights) = 0;
  // Returns in `values`, of the same shape, the weights that the next update will use. They may be passed to
  // set_weights().
  virtual void read_weights(std::span<float> values, const Tensor& weights) const = 0;

  // Updates the slices that lie in elements [begin, end) of the rank's gradient, all of which are finite. Every slice
  // lies in the range or outside it. So a step may be taken bucket by bucket, in any order.
  virtual void update(const UpdateStep& step, const Shard& shard, Range gradient) = 0;

  virtual std::vector<StateArray> state() const = 0;
};

// The optimizers of a run. Every trained tensor of the layout must be taken by one; else ExitCode::bad_config.
class OptimizerList {
 public:
  // `owned` and its layout must outlive the list.
  OptimizerList(std::vector<std::unique_ptr<Optimizer>> optimizers, const Placement& owned, int rank);

  void allocate(Arena& arena);
  void set_weights(std::span<const float> values, const Tensor& weights);
  void read_weights(std::span<float> values, const Tensor& weights) const;
  void update(const UpdateStep& step, const Shard& shard);
  void update(const UpdateStep& step, const Shard& shard, Range gradient);

  const std::vector<std::unique_ptr<Optimizer>>& optimizers() const { return optimizers_; }
  // Returns the optimizer that has the tensor; null if the tensor is not trained, or nobody takes it.
  const Optimizer* taker_of(const TensorLayout& tensor) const;

 private:
  std::vector<std::unique_ptr<Optimizer>> optimizers_;
  const Placement& owned_;
  std::vector<std::vector<OwnedSlice>> slices_;  // of each optimizer
};

// Returns the slices of a rank's shard that an optimizer has whose tensors are marked in `taken` [tensors].
std::vector<OwnedSlice> owned_slices(const Placement& owned, int rank, const std::vector<bool>& taken);
// Returns the elements that a state array of one value an element has for these slices, gaps included.
uint64_t state_elements(const Layout& layout, std::span<const OwnedSlice> slices);

}  // namespace nibble
