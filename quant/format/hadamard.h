// Randomised Hadamard rotations along the inner axis of an operand: y = x diag(s) H, H being Sylvester's matrix of +-1.
// Rotating both operands of a GEMM leaves the GEMM's result unchanged while outliers spread.
//
// 16 points (NVIDIA's recipe): multiply by x[r] * (s[r]/4) first (exact for BF16 inputs, subnormal ones included), do
// the butterfly stages with strides 1, 2, 4, 8 in FP32, and round the result to BF16 after the last rotation. 32, 64
// and 128 points: multiply x[r] * s[r], do the stages with strides 1, 2, ... in FP32, without rounding and without
// normalisation (quant/tensor/quantized_tensor.h: rotation_bits).
#pragma once

#include <cstdint>

#include "quant/format/host_device.h"
#include "quant/format/philox.h"

namespace nibble {

constexpr int hadamard_points = 16;
constexpr uint32_t hadamard_sign_mask = 0xD7E8u;  // fixed signs of 16 points; bit r set: s[r] = -1
constexpr int sign_chunk = 128;                   // inner positions whose signs come from one Philox block

// The stream from which signs are drawn. `gemm` is the GEMM of the layer: its two operands share the signs, and every
// other GEMM has its own.
struct SignStream {
  NoiseStream stream;  // purpose hadamard_signs
  uint32_t gemm = 0;   // 0 forward, 1 grad_input, 2 grad_weight
};

// Draws the signs of one chunk of 128 inner positions in rotation 0 or 1. Bit k % 32 of word[k / 32] is the sign of
// inner position 128 * chunk + k.
NIBBLE_HOST_DEVICE PhiloxBlock drawn_signs(const SignStream& signs, int rotation, int64_t chunk) {
  const uint64_t index = static_cast<uint64_t>(chunk) | (static_cast<uint64_t>(rotation) << 32) |
                         (static_cast<uint64_t>(signs.gemm) << 36);
  return random_block(signs.stream, index);
}

// Returns the fixed signs: NVIDIA's mask, repeated, for 16 points; for more points, the Philox block of key 0 and
// counter (0, 0, 0, rotation).
NIBBLE_HOST_DEVICE PhiloxBlock fixed_signs(int points, int rotation) {
  if (points == hadamard_points) {
    const uint32_t twice = hadamard_sign_mask | (hadamard_sign_mask << 16);
    return PhiloxBlock{{twice, twice, twice, twice}};
  }
  return philox4x32_10(PhiloxBlock{{0, 0, 0, static_cast<uint32_t>(rotation)}}, 0, 0);
}

NIBBLE_HOST_DEVICE uint32_t sign_of(const PhiloxBlock& signs, int64_t position) {
  return (signs.word[(position % sign_chunk) / 32] >> (position % 32)) & 1u;
}

NIBBLE_HOST_DEVICE float hadamard_factor(uint32_t negative, int points) {
  const float magnitude = points == hadamard_points ? 0.25f : 1.0f;
  return negative != 0 ? -magnitude : magnitude;
}

// Does the butterfly stages with strides 1, 2, ... points/2 in place.
NIBBLE_HOST_DEVICE void butterflies(float* values, int points) {
  for (int stride = 1; stride < points; stride *= 2) {
    for (int i = 0; i < points; ++i) {
      if ((i & stride) != 0) continue;
      const float a = values[i];
      const float b = values[i + stride];
      values[i] = a + b;
      values[i + stride] = a - b;
    }
  }
}

// Rotates `points` values in place. The first bit of `signs` is the sign of position 0.
NIBBLE_HOST_DEVICE void rotate_points(float* values, int points, const PhiloxBlock& signs) {
  for (int row = 0; row < points; ++row) values[row] *= hadamard_factor(sign_of(signs, row), points);
  butterflies(values, points);
}

}  // namespace nibble
