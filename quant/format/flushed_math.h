// FP32 arithmetic that treats subnormal inputs as zero and flushes subnormal results to zero, for code that runs
// without such a processor mode. Its results equal those of BF16 dot-product instructions and of code under
// quant/format/flush_subnormals.h. A result is subnormal if, rounded to 24 bits with an unbounded exponent, it is below
// 2^-126.
#pragma once

#include <cmath>

#include "quant/format/codec.h"

namespace nibble {

constexpr float smallest_normal = 0x1p-126F;

NIBBLE_HOST_DEVICE float flushed(float value) {
  return absolute(value) < smallest_normal ? float_of_bits(bits_of(value) & 0x80000000U) : value;
}

// Flushes a result that is subnormal in this sense although rounding to FP32 made it 2^-126: it lies below 2^-126 by
// more than half a unit of the 24 bits. `exact` is the result before it is rounded.
NIBBLE_HOST_DEVICE float flushed(float value, double exact) {
  const double magnitude = exact < 0 ? -exact : exact;
  return magnitude < 0x1p-126 - 0x1p-151 ? float_of_bits(bits_of(value) & 0x80000000U) : flushed(value);
}

// Returns a * b + c rounded once, for BF16 numbers a and b and a number c, each normal or zero. Near 2^-126 the sum is
// exact in double, or so far from the limit that its error does not matter: a * b has 16 bits, and c is a multiple of
// 2^-149.
NIBBLE_HOST_DEVICE float flushed_fma(float a, float b, float c) {
  const float sum = std::fma(a, b, c);
  if (absolute(sum) > smallest_normal || is_nan(sum)) return sum;
  return flushed(sum, static_cast<double>(a) * static_cast<double>(b) + static_cast<double>(c));
}

}  // namespace nibble
