// Sums of FP32 arrays in the order of a fold, on the compute threads or on the GPU: the same bits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "dist/device/dispatch.h"
#include "dist/zero/reduction_tree.h"

namespace nibble {

// left[i] += right[i]. Both are memory of `device`.
void add(float* left, const float* right, size_t count, DeviceKind device = DeviceKind::cpu);

class OnePassFold;
struct FoldProblem {
  const OnePassFold& plan;
  std::span<const float* const> values;
  float* out;
  size_t count;
};
namespace cpu {
void fold(const FoldProblem& problem);
}

// All joins of a fold with one root in one pass over memory.
class OnePassFold {
 public:
  OnePassFold() = default;
  explicit OnePassFold(const Fold& fold, size_t places);

  // out[i] = the root of values[..][i]. One pointer a place of the fold's list; out may be one of them, or else shares
  // no memory with them. All are memory of `device`; on a GPU there are at most 1024 places.
  void run(std::span<const float* const> values, float* out, size_t count, DeviceKind device = DeviceKind::cpu) const;

  size_t places() const { return places_; }
  // The fold as a course of events on a stack: place after place, its value is pushed, and then the upper two values
  // are replaced by their sum, lower + upper, joins_after()[place] times.
  std::span<const uint8_t> joins_after() const { return joins_after_; }

 private:
  friend void cpu::fold(const FoldProblem& problem);

  // Operands are the places, then intermediate sums, then the output.
  struct Sum {
    size_t out, left, right;
  };
  static constexpr size_t strip = 1024;             // elements of an intermediate sum
  static constexpr size_t most_intermediates = 32;  // the depth of a tree: far more groups than anyone has
  static constexpr size_t output = most_intermediates;

  void run_strips(std::span<const float* const> values, float* out, size_t begin, size_t end) const;

  size_t places_ = 0;
  std::vector<Sum> sums_;
  std::vector<uint8_t> joins_after_;
};

namespace cuda {
void add(float* left, const float* right, size_t count);
void fold(const FoldProblem& problem);
}  // namespace cuda

}  // namespace nibble
