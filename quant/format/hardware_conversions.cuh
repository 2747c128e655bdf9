// Rounds several numbers at once by the GPU's conversion instructions where it has them, with the bits of
// quant/format/codec.h. This is the only file with inline PTX and tests of the target.
//
// E2M1 is converted by Blackwell (family targets from 100 on); E4M3, E5M2 and BF16 by every target. The simulator,
// which is no GPU, takes codec.h's functions. One difference is allowed: a NaN made BF16 is 0x7FFF here and keeps its
// payload there.
//
// Blackwell's stochastic conversions are not used: they add their noise before truncating, ours is centred.
#pragma once

#include <cuda_runtime.h>

#include "quant/format/codec.h"

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000 && !defined(__CUDA_ARCH_FAMILY_SPECIFIC__)
static_assert(false, "compile for 100a, 103a or 120f: plain Blackwell targets lack the four-bit conversions");
#endif
#if defined(__CUDA_ARCH_FAMILY_SPECIFIC__) && __CUDA_ARCH_FAMILY_SPECIFIC__ >= 1000
#define NIBBLE_CONVERTS_E2M1
#endif
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
#define NIBBLE_CONVERTS_FP8
#endif

namespace nibble::cuda {

// Rounds eight values as e2m1_nearest does; the first code is in the lowest nibble.
__device__ __forceinline__ uint32_t e2m1_nearest_eight(const float* values) {
#ifdef NIBBLE_CONVERTS_E2M1
  uint32_t codes;
  asm("{\n"
      ".reg .b8 byte0, byte1, byte2, byte3;\n"
      "cvt.rn.satfinite.e2m1x2.f32 byte0, %2, %1;\n"
      "cvt.rn.satfinite.e2m1x2.f32 byte1, %4, %3;\n"
      "cvt.rn.satfinite.e2m1x2.f32 byte2, %6, %5;\n"
      "cvt.rn.satfinite.e2m1x2.f32 byte3, %8, %7;\n"
      "mov.b32 %0, {byte0, byte1, byte2, byte3};\n"
      "}"
      : "=r"(codes)
      : "f"(values[0]), "f"(values[1]), "f"(values[2]), "f"(values[3]), "f"(values[4]), "f"(values[5]), "f"(values[6]),
        "f"(values[7]));
  return codes;
#else
  uint32_t codes = 0;
  for (int i = 0; i < 8; ++i) codes |= e2m1_nearest(values[i]) << (4 * i);
  return codes;
#endif
}

// Round four values as e4m3_nearest and e5m2_nearest do; the first code is in the lowest byte.
__device__ __forceinline__ uint32_t e4m3_nearest_four(const float* values) {
#ifdef NIBBLE_CONVERTS_FP8
  uint16_t low, high;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(low) : "f"(values[1]), "f"(values[0]));
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(high) : "f"(values[3]), "f"(values[2]));
  return low | static_cast<uint32_t>(high) << 16;
#else
  uint32_t codes = 0;
  for (int i = 0; i < 4; ++i) codes |= e4m3_nearest(values[i]) << (8 * i);
  return codes;
#endif
}
__device__ __forceinline__ uint32_t e5m2_nearest_four(const float* values) {
#ifdef NIBBLE_CONVERTS_FP8
  uint16_t low, high;
  asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;" : "=h"(low) : "f"(values[1]), "f"(values[0]));
  asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;" : "=h"(high) : "f"(values[3]), "f"(values[2]));
  return low | static_cast<uint32_t>(high) << 16;
#else
  uint32_t codes = 0;
  for (int i = 0; i < 4; ++i) codes |= e5m2_nearest(values[i]) << (8 * i);
  return codes;
#endif
}

// Rounds two values as bf16_nearest does; the first is in the low half.
__device__ __forceinline__ uint32_t bf16_nearest_two(float first, float second) {
#ifdef __CUDA_ARCH__
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  return pair;
#else
  return bf16_nearest(first).bits | static_cast<uint32_t>(bf16_nearest(second).bits) << 16;
#endif
}

}  // namespace nibble::cuda
