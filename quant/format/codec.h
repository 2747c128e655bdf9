// The number formats, bit by bit: BF16, E4M3, E5M2, E8M0 and E2M1, and every rounding into them.
// One definition for the CPU and for CUDA kernels; no libm, no branches that a vectoriser cannot turn into selects.
// Codes are returned as uint32_t, which keeps vector loops free of narrowing.
// docs/numerics.md states the same rules in prose. Subnormal numbers must not be flushed to zero.
#pragma once

#include <cstdint>
#include <cstring>

#include "quant/format/dtype.h"
#include "quant/format/host_device.h"

namespace nibble {

NIBBLE_HOST_DEVICE uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}
NIBBLE_HOST_DEVICE float float_of_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}
NIBBLE_HOST_DEVICE float absolute(float value) {
  return float_of_bits(bits_of(value) & 0x7FFFFFFFu);
}
NIBBLE_HOST_DEVICE bool is_nan(float value) {
  return (bits_of(value) & 0x7FFFFFFFu) > 0x7F800000u;
}
NIBBLE_HOST_DEVICE bool is_finite(float value) {
  return (bits_of(value) & 0x7FFFFFFFu) < 0x7F800000u;
}

// ---- BF16 ----

NIBBLE_HOST_DEVICE float to_float(BFloat16 value) {
  return float_of_bits(static_cast<uint32_t>(value.bits) << 16);
}
NIBBLE_HOST_DEVICE float to_float(float value) {
  return value;
}

// Rounds to nearest, ties to even. Values beyond the largest finite BF16 number by half a unit or more become infinite.
// NaN stays NaN and is made quiet.
NIBBLE_HOST_DEVICE BFloat16 bf16_nearest(float value) {
  const uint32_t bits = bits_of(value);
  const uint32_t rounded = bits + 0x7FFFu + ((bits >> 16) & 1u);
  const uint32_t chosen = is_nan(value) ? (bits | 0x00400000u) : rounded;
  return BFloat16{static_cast<uint16_t>(chosen >> 16)};
}

// Rounds a double to nearest, ties to even, in one rounding instead of two.
NIBBLE_HOST_DEVICE BFloat16 bf16_nearest_once(double value) {
  const float single = static_cast<float>(value);
  const double back = static_cast<double>(single);
  // `single` has lost the side on which `value` lies only where it is exactly halfway between two BF16 numbers.
  const bool tie = (bits_of(single) & 0xFFFFu) == 0x8000u;
  const bool above = value > 0 ? value > back : value < back;
  const uint32_t step = back == value ? 0u : (above ? 1u : ~0u);
  return bf16_nearest(tie ? float_of_bits(bits_of(single) + step) : single);
}

// Rounds stochastically: the carry of the 16 bits that BF16 drops plus 16 random bits decides. The value is rounded
// away from zero with probability (dropped bits) / 2^16, so the rounding is unbiased. A finite value stays finite (the
// largest finite BF16 number bounds it); infinities and NaN are kept. bits16 is below 2^16.
NIBBLE_HOST_DEVICE BFloat16 bf16_stochastic(float value, uint32_t bits16) {
  const uint32_t bits = bits_of(value);
  const uint32_t sign = bits & 0x80000000u;
  const uint32_t raised = (bits & 0x7FFFFFFFu) + bits16;
  const uint32_t magnitude = raised < 0x7F800000u ? raised : 0x7F7F0000u;
  const uint32_t kept = is_nan(value) ? (bits | 0x00400000u) : bits;
  const uint32_t chosen = is_finite(value) ? (sign | magnitude) : kept;
  return BFloat16{static_cast<uint16_t>(chosen >> 16)};
}

// ---- E4M3: sign, 4 exponent bits (bias 7), 3 mantissa bits; 0x7F is NaN, no infinities ----

constexpr float e4m3_max = 448.0f;            // 0x7E
constexpr float e4m3_min_normal = 0.015625f;  // 2^-6, 0x08; the subnormal step is 2^-9

// Rounds to nearest, ties to even, saturating at +-448. NaN becomes 0x7F.
NIBBLE_HOST_DEVICE uint32_t e4m3_nearest(float value) {
  const uint32_t bits = bits_of(value);
  const float magnitude = absolute(value) < e4m3_max ? absolute(value) : e4m3_max;
  const uint32_t magnitude_bits = bits_of(magnitude);
  const uint32_t normal = ((magnitude_bits + 0x7FFFFu + ((magnitude_bits >> 20) & 1u)) >> 20) - (120u << 3);
  const uint32_t subnormal = bits_of(magnitude + 16384.0f) - bits_of(16384.0f);  // one unit of 2^14 is 2^-9
  const uint32_t finite = ((bits >> 24) & 0x80u) | (magnitude < e4m3_min_normal ? subnormal : normal);
  return is_nan(value) ? 0x7Fu : finite;
}

// Returns the smallest E4M3 number >= value, for 0 <= value <= 2^-6.
NIBBLE_HOST_DEVICE uint32_t e4m3_subnormal_up(float value) {
  const int32_t units = static_cast<int32_t>(value * 512.0f);
  return static_cast<uint32_t>(units + (static_cast<float>(units) < value * 512.0f ? 1 : 0));
}

NIBBLE_HOST_DEVICE float e4m3_to_float(uint32_t code) {
  const uint32_t magnitude = code & 0x7Fu;
  const float normal = float_of_bits((magnitude << 20) + (120u << 23));
  const float subnormal = static_cast<float>(static_cast<int32_t>(magnitude)) * 0.001953125f;
  const float finite = magnitude < 8u ? subnormal : normal;
  const uint32_t bits = magnitude == 0x7Fu ? 0x7FC00000u : bits_of(finite);
  return float_of_bits(bits | ((code & 0x80u) << 24));
}

// Rounds a value >= 0 stochastically to one of the two neighbouring E4M3 numbers. It rounds up when the covered
// fraction of the step, cut to 24 bits, and the 24 bits of noise carry: this is unbiased for normal numbers, and for
// subnormal ones down to 2^-33. It saturates at 448; NaN becomes 0x7F. noise24 is below 2^24.
NIBBLE_HOST_DEVICE uint32_t e4m3_stochastic(float value, uint32_t noise24) {
  const float magnitude = value < e4m3_max ? value : e4m3_max;
  const uint32_t bits = bits_of(magnitude);
  // Normal numbers drop 20 bits of the mantissa.
  const uint32_t normal = ((bits + (noise24 >> 4)) >> 20) - (120u << 3);
  // One unit is 2^-9. The part below the unit, in 2^-24 of it, is exact down to 2^-33.
  const float units = (magnitude < e4m3_min_normal ? magnitude : 0.0f) * 512.0f;
  const uint32_t whole = static_cast<uint32_t>(static_cast<int32_t>(units));
  const float rest = (units - static_cast<float>(static_cast<int32_t>(whole))) * 16777216.0f;
  const uint32_t carry = (static_cast<uint32_t>(static_cast<int32_t>(rest)) + noise24) >> 24;
  const uint32_t finite = magnitude < e4m3_min_normal ? whole + carry : normal;
  return is_nan(value) ? 0x7Fu : finite;
}

// ---- E5M2: sign, 5 exponent bits (bias 15), 2 mantissa bits; 0x7C is infinity ----

constexpr float e5m2_max = 57344.0f;  // 0x7B

// Rounds to nearest, ties to even, saturating at +-57344 (infinity saturates, too, as in a saturating conversion of the
// hardware). NaN becomes 0x7F.
NIBBLE_HOST_DEVICE uint32_t e5m2_nearest(float value) {
  const uint32_t bits = bits_of(value);
  const float magnitude = absolute(value) < e5m2_max ? absolute(value) : e5m2_max;
  const uint32_t magnitude_bits = bits_of(magnitude);
  const uint32_t normal = ((magnitude_bits + 0xFFFFFu + ((magnitude_bits >> 21) & 1u)) >> 21) - (112u << 2);
  const uint32_t subnormal = bits_of(magnitude + 128.0f) - bits_of(128.0f);  // one unit of 2^7 is 2^-16
  const uint32_t finite = ((bits >> 24) & 0x80u) | (magnitude < 6.103515625e-05f ? subnormal : normal);
  return is_nan(value) ? 0x7Fu : finite;
}

NIBBLE_HOST_DEVICE float e5m2_to_float(uint32_t code) {
  const uint32_t magnitude = code & 0x7Fu;
  const float normal = float_of_bits((magnitude << 21) + (112u << 23));
  const float subnormal = static_cast<float>(static_cast<int32_t>(magnitude)) * 1.52587890625e-05f;
  const float finite = magnitude < 4u ? subnormal : normal;
  const uint32_t special = magnitude == 0x7Cu ? 0x7F800000u : 0x7FC00000u;
  const uint32_t bits = magnitude >= 0x7Cu ? special : bits_of(finite);
  return float_of_bits(bits | ((code & 0x80u) << 24));
}

// ---- E8M0: powers of two, 2^(code - 127); 0xFF is NaN ----

// Returns the code of the largest power of two <= value, for value >= 0; it is at least that of 2^-127. Infinity and
// NaN become 2^127.
NIBBLE_HOST_DEVICE uint32_t e8m0_down(float value) {
  const uint32_t exponent = bits_of(absolute(value)) >> 23;  // -0 counts as 0
  return exponent < 254u ? exponent : 254u;
}
// Returns the code of the smallest power of two >= value, for value >= 0; it is at most that of 2^127.
NIBBLE_HOST_DEVICE uint32_t e8m0_up(float value) {
  const uint32_t bits = bits_of(absolute(value));
  const uint32_t exact = bits <= 0x00400000u ? 0u : (bits + 0x7FFFFFu) >> 23;  // 2^-127 is subnormal in FP32
  return exact < 254u ? exact : 254u;
}
NIBBLE_HOST_DEVICE float e8m0_to_float(uint32_t code) {
  const uint32_t power = code == 0 ? 0x00400000u : code << 23;
  return float_of_bits(code == 0xFFu ? 0x7FC00000u : power);
}

// ---- E2M1: magnitudes 0 .5 1 1.5 2 3 4 6 for codes 0..7, bit 3 the sign ----

// Returns the sign bit of the value's code. NaN has no sign, so that NaN becomes 7 as in the hardware's conversion.
NIBBLE_HOST_DEVICE uint32_t e2m1_sign(float value) {
  return is_nan(value) ? 0u : (bits_of(value) >> 28) & 8u;
}

// Rounds to nearest, ties to the even code, saturating at +-6. NaN becomes 7; values that round to zero keep their sign
// (-0 becomes 8).
NIBBLE_HOST_DEVICE uint32_t e2m1_nearest(float value) {
  const float magnitude = absolute(value) < 6.0f ? absolute(value) : 6.0f;
  const uint32_t bits = bits_of(magnitude);
  const uint32_t normal = ((bits + 0x1FFFFFu + ((bits >> 22) & 1u)) >> 22) - (126u << 1);
  const uint32_t subnormal = bits_of(magnitude + 4194304.0f) - bits_of(4194304.0f);  // one unit of 2^22 is 0.5
  return e2m1_sign(value) | (magnitude < 1.0f ? subnormal : normal);
}

// Returns the value that e2m1_nearest rounds a magnitude to: adding and subtracting a power of two rounds to its last
// digit.
NIBBLE_HOST_DEVICE float e2m1_round_magnitude(float value) {
  const float magnitude = value < 6.0f ? value : 6.0f;
  const float power = magnitude < 2.0f ? 4194304.0f : (magnitude < 4.0f ? 8388608.0f : 16777216.0f);
  return (magnitude + power) - power;
}

// A magnitude in 256ths of the grid's step at that magnitude, and the number that is added to (units >> 8) to get a
// code.
struct E2m1Position {
  float units;    // below 2: |v| * 512; below 4: |v| * 256; else |v| * 128. Exact.
  uint32_t base;  // 0, 2, 4
};
NIBBLE_HOST_DEVICE E2m1Position e2m1_position(float value) {
  const float magnitude = absolute(value) < 6.0f ? absolute(value) : 6.0f;
  const float scale = magnitude < 2.0f ? 512.0f : (magnitude < 4.0f ? 256.0f : 128.0f);
  const uint32_t base = magnitude < 2.0f ? 0u : (magnitude < 4.0f ? 2u : 4u);
  return E2m1Position{magnitude * scale, base};
}

// Rounds like NVIDIA's stochastic conversion with 8 random bits: up when the fraction of the step that |v| has covered
// is at least (256 - byte)/256, which has probability floor(256 fraction)/256. Saturates at +-6.
NIBBLE_HOST_DEVICE uint32_t e2m1_stochastic_published(float value, uint32_t byte) {
  const E2m1Position position = e2m1_position(value);
  const uint32_t units = static_cast<uint32_t>(static_cast<int32_t>(position.units));
  return e2m1_sign(value) | (((units + byte) >> 8) + position.base);
}

// Centred: up when (byte + 0.5)/256 < fraction, so that truncating to 8 random bits adds no bias. Saturates at +-6.
NIBBLE_HOST_DEVICE uint32_t e2m1_stochastic_centred(float value, uint32_t byte) {
  const E2m1Position position = e2m1_position(value);
  const int32_t whole = static_cast<int32_t>(position.units);
  const int32_t half_down = whole + (position.units - static_cast<float>(whole) > 0.5f ? 1 : 0);
  const uint32_t cell = (static_cast<uint32_t>(half_down) + 255u - byte) >> 8;
  return e2m1_sign(value) | (cell + position.base);
}

// Returns twice the value of a code, which is an integer: 0 1 2 3 4 6 8 12, signed.
NIBBLE_HOST_DEVICE int32_t e2m1_doubled(uint32_t code) {
  const int32_t magnitude = static_cast<int32_t>((0xC8643210u >> (4u * (code & 7u))) & 15u);
  return (code & 8u) != 0 ? -magnitude : magnitude;
}

// Code 8 is -0.
NIBBLE_HOST_DEVICE float e2m1_to_float(uint32_t code) {
  const float magnitude = 0.5f * static_cast<float>(static_cast<int32_t>((0xC8643210u >> (4u * (code & 7u))) & 15u));
  return float_of_bits(bits_of(magnitude) | ((code & 8u) << 28));
}

// ---- Scales of an NVFP4 tensor. FP32 operations in exactly this order (docs/numerics.md) ----

constexpr float float_max = 3.402823466e+38f;

struct TensorScale {
  float encode;  // S_enc
  float decode;  // S_dec = 1 / S_enc: a value is code * block scale * S_dec
};

// Chooses the scale of a tensor. amax: the tensor's largest magnitude; largest: the magnitude that it shall become,
// 2688 = 6 * 448 in Transformer Engine.
NIBBLE_HOST_DEVICE TensorScale tensor_scale_of(float amax, float largest) {
  const float quotient = largest / amax;
  float encode = quotient < float_max ? quotient : float_max;  // NaN becomes FLT_MAX, too
  encode = amax == 0.0f || encode == 0.0f ? 1.0f : encode;
  return TensorScale{encode, 1.0f / encode};
}

// Returns the E4M3 scale of a block, from d = block_amax * (S_enc * (1/6)).
NIBBLE_HOST_DEVICE uint32_t block_scale_nearest(float d) {
  return e4m3_nearest(d < float_max ? d : float_max);
}

// Returns the E4M3 scale of a block, from the same d, enlarged so that rounding the scale can never leave the block's
// largest element above 6: a normal scale is enlarged by 17/16, the most that rounding to nearest can take away; a
// subnormal one is rounded up.
NIBBLE_HOST_DEVICE uint32_t block_scale_guarded(float d) {
  const float enlarged = d * 1.0625f;
  const uint32_t normal = e4m3_nearest(enlarged < float_max ? enlarged : float_max);
  const uint32_t subnormal = e4m3_subnormal_up(d < e4m3_min_normal ? d : e4m3_min_normal);
  const uint32_t is_subnormal = enlarged < e4m3_min_normal ? ~0u : 0u;  // a mask: compilers made a branch of it
  return (subnormal & is_subnormal) | (normal & ~is_subnormal);
}

// Returns the factor by which the block's elements are multiplied before they are rounded.
NIBBLE_HOST_DEVICE float element_encode_scale(uint32_t block_scale, float tensor_decode) {
  const float reciprocal = 1.0f / (e4m3_to_float(block_scale) * tensor_decode);
  return reciprocal < float_max ? reciprocal : float_max;
}

}  // namespace nibble
