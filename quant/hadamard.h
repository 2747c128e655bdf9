// The 16-point Hadamard rotation of NVIDIA's recipe: y = x H, H[r][c] = s[r] (-1)^popcount(r & c) / 4, with a fixed
// vector of signs s. H is orthogonal, so rotating both operands of a GEMM along its inner axis leaves the product
// unchanged while outliers spread over 16 elements.
//
// The order of the FP32 additions is part of the contract: x[r] * (s[r]/4) first (exact for BF16 inputs, subnormal ones
// included), then four butterfly stages with strides 1, 2, 4, 8. The result is then rounded to BF16.
#pragma once

#include <cstdint>

#include "quant/host_device.h"

namespace nibble {

constexpr int hadamard_points = 16;
constexpr uint32_t hadamard_sign_mask = 0xD7E8u;  // bit r set: s[r] = -1

NIBBLE_HOST_DEVICE float hadamard_factor(int row, uint32_t sign_mask) {
  return ((sign_mask >> row) & 1u) != 0 ? -0.25f : 0.25f;
}

// In place, on 16 values.
NIBBLE_HOST_DEVICE void rotate_16(float* values, uint32_t sign_mask) {
  for (int row = 0; row < hadamard_points; ++row) values[row] *= hadamard_factor(row, sign_mask);
  for (int stride = 1; stride < hadamard_points; stride *= 2) {
    for (int i = 0; i < hadamard_points; ++i) {
      if ((i & stride) != 0) continue;
      const float a = values[i];
      const float b = values[i + stride];
      values[i] = a + b;
      values[i + stride] = a - b;
    }
  }
}

}  // namespace nibble
