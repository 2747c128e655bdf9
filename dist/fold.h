// Sums of FP32 arrays in the order of a fold, on the compute threads.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "dist/reduction_tree.h"

namespace nibble {

// left[i] += right[i].
void add(float* left, const float* right, size_t count);

// All joins of a fold with one root in one pass over memory.
class OnePassFold {
 public:
  OnePassFold() = default;
  explicit OnePassFold(const Fold& fold, size_t places);

  // out[i] = the root of values[..][i]. One pointer a place of the fold's list; out may be one of them, or else shares
  // no memory with them.
  void run(std::span<const float* const> values, float* out, size_t count) const;

 private:
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
};

}  // namespace nibble
