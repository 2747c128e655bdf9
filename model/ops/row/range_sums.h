// The gradient of a vector that all tokens share, such as a norm's weight or a bias, is a sum over tokens. They are cut
// into a fixed number of ranges, whatever the number of threads: the terms of each range are summed in order, and then
// the ranges. range_sums.cpp and range_sums.cu add up the ranges.
#pragma once

#include "dist/base/error.h"
#include "quant/tensor/tensor.h"

namespace nibble {

constexpr int64_t token_ranges = 32;  // at most

// The ranges of a number of tokens; all are equally long but the last, which may be shorter.
struct TokenRanges {
  int64_t length = 0, count = 0;

  static TokenRanges of(int64_t tokens) {
    if (tokens == 0) return {};
    const int64_t length = div_ceil<int64_t>(tokens, token_ranges);
    return {length, div_ceil<int64_t>(tokens, length)};
  }
};

struct RangeSums {
  // f32 [rows, features], in the order in which they are added. On the CPU, the even and the odd ones of 32 elements
  // stand apart: elements 0, 2, ..., 30, 1, 3, ..., 31.
  Tensor sums;
  Tensor gradient;         // f32 [features]: the sum of the rows is added to it
  bool continues = false;  // the sum goes on from what the gradient holds, in place of beginning with zero
};
namespace cpu {
void add_range_sums(const RangeSums& problem);
}
namespace cuda {
void add_range_sums(const RangeSums& problem);
}

}  // namespace nibble
