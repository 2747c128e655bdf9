// Sums of FP32 arrays in the order of a fold, with the same bits on the compute threads and on the GPU.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "dist/device/device_kind.h"
#include "dist/zero/reduction_tree.h"

namespace nibble {

// left[i] += right[i]. Both arrays are memory of `device`.
void add(float* left, const float* right, size_t count, DeviceKind device = DeviceKind::cpu);

// Sets all elements to zero.
void clear(float* values, size_t count, DeviceKind device);

// left[i] += right[i], or left[i] = right[i].
struct FoldStep {
  float* left;
  const float* right;
  bool assigns;
};
// Performs the steps one after the other on each of `count` elements. Arrays of different steps may be the same; all
// are memory of `device`.
void run_steps(std::span<const FoldStep> steps, size_t count, DeviceKind device);

class OnePassFold;
struct FoldProblem {
  const OnePassFold& fold;
  std::span<const float* const> values;
  float* out;
  size_t count;
};
namespace cpu {
void fold(const FoldProblem& problem);
}

// Computes all joins of a fold that has one root in one pass over memory.
class OnePassFold {
 public:
  OnePassFold() = default;
  explicit OnePassFold(const Fold& fold, size_t inputs);

  // out[i] = the root of values[..][i]. `values` has one pointer for each input of the fold's list. `out` is one of
  // these arrays or shares no memory with them. All are memory of `device`; on a GPU there are at most 1024 inputs.
  void run(std::span<const float* const> values, float* out, size_t count, DeviceKind device = DeviceKind::cpu) const;

  size_t inputs() const { return inputs_; }
  // The fold as operations on a stack: for each input in turn its value is pushed, and then joins_after()[input] times
  // the upper two values are replaced by their sum, lower + upper.
  std::span<const uint8_t> joins_after() const { return joins_after_; }

 private:
  friend void cpu::fold(const FoldProblem& problem);

  // Operands are numbered: first the inputs, then the intermediate sums, then the output.
  struct Sum {
    size_t out, left, right;
  };
  static constexpr size_t strip = 1024;             // elements of an intermediate sum
  static constexpr size_t most_intermediates = 32;  // the depth of a tree; enough for far more groups than a step has
  static constexpr size_t output = most_intermediates;

  void run_strips(std::span<const float* const> values, float* out, size_t begin, size_t end) const;

  size_t inputs_ = 0;
  std::vector<Sum> sums_;
  std::vector<uint8_t> joins_after_;
};

namespace cuda {
void add(float* left, const float* right, size_t count);
void fold(const FoldProblem& problem);
}  // namespace cuda

}  // namespace nibble
