// Rounds a block of weights to codes and scales, in functions that the CPU and kernels share. docs/numerics.md states
// the same in prose.
//
// A magnitude is the low 15 bits of a BF16 number: magnitudes order like the numbers, infinity and NaN last. The
// largest one of a group or of a block decides its scale. Rounding rounded weights again gives the same values.
#pragma once

#include <cstdint>

#include "quant/format/codec.h"

namespace nibble::weight_rounding {

constexpr int block = 4096;      // elements; the power of two of NVFP4 is for one block
constexpr int fp8_group = 32;    // elements that share an E8M0 scale
constexpr int nvfp4_group = 16;  // elements that share an E4M3 scale

constexpr uint32_t infinite = 0x7F80;
// 1.875 * 2^127 = 6 * 1.25 * 2^125: finite magnitudes above this count as this.
constexpr uint32_t largest = 0x7F70;
// The E8M0 code of 2^-120: every decoded value is then a multiple of 2^-133, the last unit of BF16.
constexpr uint32_t smallest_power = 7;
constexpr uint32_t nan_power = 0xFF;
// The E4M3 code of 2^-6: subnormal scales are so coarse that rounding again would find another one.
constexpr uint32_t smallest_scale = 0x08;

NIBBLE_HOST_DEVICE float bf16_bits_to_float(uint32_t bits) {
  return float_of_bits(bits << 16);
}

NIBBLE_HOST_DEVICE uint32_t magnitude(BFloat16 weight) {
  const uint32_t bits = weight.bits & 0x7FFFu;
  return bits > largest && bits < infinite ? largest : bits;
}
// Returns the weight as FP32, finite ones within `largest`.
NIBBLE_HOST_DEVICE float element(BFloat16 weight) {
  return bf16_bits_to_float(magnitude(weight) | (weight.bits & 0x8000u));
}

// ---- FP8: E4M3 codes times a power of two for each 32 elements ----

// Returns the E8M0 code of the smallest power of two with which nothing in the group is above 448.
NIBBLE_HOST_DEVICE uint32_t fp8_power(uint32_t group_magnitude) {
  const uint32_t power = e8m0_up(bf16_bits_to_float(group_magnitude) / e4m3_max);
  const uint32_t bounded = power > smallest_power ? power : smallest_power;
  return group_magnitude >= infinite ? nan_power : bounded;
}
// Returns 1 over an E8M0 scale of this file, which is exact.
NIBBLE_HOST_DEVICE float power_reciprocal(uint32_t power) {
  return float_of_bits(power == nan_power ? 0x7FC00000u : (254u - power) << 23);
}
NIBBLE_HOST_DEVICE BFloat16 fp8_decode(uint32_t code, uint32_t power) {
  const uint32_t bits = bits_of(e4m3_to_float(code) * e8m0_to_float(power)) >> 16;
  return BFloat16{static_cast<uint16_t>(power == nan_power ? 0x7FC0u : bits)};
}

// ---- NVFP4: E2M1 codes times an E4M3 scale for each 16 elements times a power of two for the block ----

// Returns what the E4M3 scale times the power should be, for the largest element to become 6.
NIBBLE_HOST_DEVICE float nvfp4_wanted(uint32_t group_magnitude) {
  return bf16_bits_to_float(group_magnitude) / 6.0f;
}
// Returns the E8M0 code of the power with which the scale of the block's largest element lies within 128 and 240.
NIBBLE_HOST_DEVICE uint32_t nvfp4_power(uint32_t block_magnitude) {
  const uint32_t bits = bits_of(nvfp4_wanted(block_magnitude));
  // The exponent is that of the scale as rounded to four digits: rounding may have raised it to the next power of two.
  const uint32_t exponent = (bits + 0x7FFFFu + ((bits >> 20) & 1u)) >> 23;
  const uint32_t bounded = exponent > smallest_power + 7u ? exponent - 7u : smallest_power;
  return block_magnitude >= infinite ? nan_power : bounded;
}
// Returns the E4M3 code of the group's scale.
NIBBLE_HOST_DEVICE uint32_t nvfp4_scale(uint32_t group_magnitude, uint32_t power) {
  const uint32_t scale = e4m3_nearest(nvfp4_wanted(group_magnitude) * power_reciprocal(power));
  return scale > smallest_scale ? scale : smallest_scale;
}
// Returns the factor of the group's E2M1 codes, which is exact. It is NaN where the power is.
NIBBLE_HOST_DEVICE float nvfp4_unit(uint32_t scale, uint32_t power) {
  return e4m3_to_float(scale) * e8m0_to_float(power);
}
NIBBLE_HOST_DEVICE BFloat16 nvfp4_decode(uint32_t code, float unit) {
  const uint32_t bits = bits_of(e2m1_to_float(code) * unit) >> 16;
  return BFloat16{static_cast<uint16_t>(is_nan(unit) ? 0x7FC0u : bits)};
}

}  // namespace nibble::weight_rounding
