// exp, log and sigmoid in FP32 from additions, multiplications (fused in exp), divisions and bit operations, without
// tables or branches. They therefore have the same bits on every machine, and loops over them vectorise. The
// polynomials are interpolations in Chebyshev nodes, with coefficients rounded to FP32.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "dist/base/vectorize.h"
#include "quant/format/host_device.h"

namespace nibble {

constexpr float smallest_argument_of_exp = -87.6f;
constexpr float largest_argument_of_exp = 89.0f;

namespace detail {
// The bounds between which exp_f32 computes; beyond them the result is 0 or infinity. They are defined in another
// source, because the compiler turns bounds that it knows into branches, and bounds that it does not know into blends.
extern const float lowest_exponent, highest_exponent;
}  // namespace detail

// Returns e^x with an error below 1 ulp from e^-86.98 on and 0 below (there are no subnormal results); infinity for
// infinity and beyond the range, NaN for NaN. It is computed between the bounds `lowest` and `highest`.
NIBBLE_HOST_DEVICE float exp_f32_between(float x, float lowest, float highest) {
  constexpr float log2_e = 0x1.715476p+0f;
  constexpr float ln2_high = 0x1.62e4p-1f;
  constexpr float ln2_low = 0x1.7f7d1cp-20f;
  // Adding this leaves the nearest integer in the low bits, plus 126: the biased exponent of 2^(integer - 1).
  constexpr float round_to_integer = 0x1.8p+23f + 126.0f;
  x = x < lowest ? lowest : x;
  x = x > highest ? highest : x;

  const float shifted = std::fma(x, log2_e, round_to_integer);
  const float exponent = shifted - round_to_integer;
  const float r = std::fma(exponent, -ln2_low, std::fma(exponent, -ln2_high, x));
  // The polynomial computes 2 e^r.
  float power = 0x1.6d117cp-9f;
  power = std::fma(power, r, 0x1.120be2p-6f);
  power = std::fma(power, r, 0x1.555518p-4f);
  power = std::fma(power, r, 0x1.5554dcp-2f);
  power = std::fma(power, r, 1.0f);
  power = std::fma(power, r, 2.0f);
  power = std::fma(power, r, 2.0f);
  // At the lower bound the integer is -126 and the factor is zero.
  return power * std::bit_cast<float>(std::bit_cast<uint32_t>(shifted) << 23);
}
NIBBLE_INLINE float exp_f32(float x) {
  return exp_f32_between(x, detail::lowest_exponent, detail::highest_exponent);
}

// Returns the natural logarithm with an error below 1 ulp, also for subnormal arguments: -infinity for 0, infinity for
// infinity, NaN for negative numbers and NaN.
NIBBLE_HOST_DEVICE float log_f32(float x) {
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

// Returns 1 / (1 + e^-x) with an error below 3 ulp down to x = -87, and 0 soon below. NaN gives NaN.
NIBBLE_INLINE float sigmoid_f32(float x) {
  return 1.0f / (1.0f + exp_f32(-x));
}

// Returns x sigmoid(x), as accurate as sigmoid_f32.
NIBBLE_INLINE float silu_f32(float x) {
  return x / (1.0f + exp_f32(-x));
}

}  // namespace nibble
