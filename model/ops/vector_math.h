// exp, log and sigmoid in FP32 from additions, multiplications, divisions and bit operations: no library calls, no
// fused operations, no tables, no branches. So they have the same bits on every machine, and loops over them vectorise.
// The polynomials are interpolations in Chebyshev nodes, with coefficients rounded to FP32.
#pragma once

#include <bit>
#include <cstdint>
#include <limits>

#include "dist/vectorize.h"

namespace nibble {

// e^x, less than 1.1 ulp off over the whole range, subnormal results included. 0 for -infinity, infinity for infinity
// and beyond the range, NaN for NaN.
NIBBLE_INLINE float exp_f32(float x) {
  constexpr float log2_e = 0x1.715476p+0f;
  constexpr float ln2_high = 0x1.62e4p-1f;  // 15 bits, so that its product with the exponent is exact
  constexpr float ln2_low = 0x1.7f7d1cp-20f;
  constexpr float round_to_integer = 0x1.8p+23f;  // adding it leaves the nearest integer in the low bits
  // Beyond these bounds the result is 0 or infinity; inside them the exponent fits the two factors below.
  x = x < -104.5f ? -104.5f : x;
  x = x > 89.0f ? 89.0f : x;

  const float shifted = x * log2_e + round_to_integer;
  const float exponent = shifted - round_to_integer;
  const float r = (x - exponent * ln2_high) - exponent * ln2_low;
  float q = 0x1.6d117cp-10f;
  q = q * r + 0x1.120be2p-7f;
  q = q * r + 0x1.555518p-5f;
  q = q * r + 0x1.5554dcp-3f;
  q = q * r + 0.5f;
  const float power = 1.0f + (r + (r * r) * q);

  // Two factors, because 2^exponent alone may lie outside FP32; only the second product rounds.
  const uint32_t n = std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(round_to_integer);
  const uint32_t first = static_cast<uint32_t>(static_cast<int32_t>(n) >> 1);
  const float first_factor = std::bit_cast<float>((first + 127u) << 23);
  const float second_factor = std::bit_cast<float>((n - first + 127u) << 23);
  return power * first_factor * second_factor;
}

// Natural logarithm, less than 1 ulp off, subnormal arguments included. -infinity for 0, infinity for infinity, NaN for
// negative numbers and NaN.
NIBBLE_INLINE float log_f32(float x) {
  constexpr float ln2_high = 0x1.62e4p-1f;
  constexpr float ln2_low = 0x1.7f7d1cp-20f;
  constexpr uint32_t sqrt_half = 0x3F3504F3u;  // bits of sqrt(1/2)
  const bool subnormal = x < 0x1p-126f;
  const float normal = subnormal ? x * 0x1p+23f : x;

  // x = mantissa * 2^exponent with mantissa in [sqrt(1/2), sqrt(2)).
  const uint32_t offset = std::bit_cast<uint32_t>(normal) - sqrt_half;
  const int32_t exponent_bits = static_cast<int32_t>(offset) >> 23;
  const float exponent = static_cast<float>(exponent_bits) - (subnormal ? 23.0f : 0.0f);
  const float mantissa = std::bit_cast<float>((offset & 0x7FFFFFu) + sqrt_half);

  // log(1 + f) = 2 atanh(s) with s = f / (2 + f), and 2 s = f - s f.
  const float f = mantissa - 1.0f;
  const float s = f / (2.0f + f);
  const float z = s * s;
  const float tail = z * (0x1.55555cp-1f + z * (0x1.997c12p-2f + z * 0x1.2eeb8p-2f));
  const float finite = exponent * ln2_high + (f - (s * (f - tail) - exponent * ln2_low));

  constexpr float infinity = std::numeric_limits<float>::infinity();
  const float positive = x == infinity ? infinity : finite;
  const float other = x == 0.0f ? -infinity : std::numeric_limits<float>::quiet_NaN();
  return x > 0.0f ? positive : other;
}

// 1 / (1 + e^-x), less than 3 ulp off down to x = -87 and 0 soon below. NaN for NaN.
NIBBLE_INLINE float sigmoid_f32(float x) {
  return 1.0f / (1.0f + exp_f32(-x));
}

}  // namespace nibble
