// Does the rotations of quant/format/hadamard.h on runs: the stages up to stride 8 in the registers of a thread, longer
// strides among the eight lanes that hold a row.
#pragma once

#include <type_traits>

#include "quant/format/hardware_conversions.cuh"
#include "quant/quantize/cuda/quantize_operand.cuh"

namespace nibble::cuda {

__device__ __forceinline__ void round_to_bf16(float (&values)[run_length]) {
  for (int i = 0; i < run_length; i += 2) {
    const uint32_t pair = bf16_nearest_two(values[i], values[i + 1]);
    values[i] = float_of_bits(pair << 16);
    values[i + 1] = float_of_bits(pair & 0xFFFF0000u);
  }
}

__device__ __forceinline__ PhiloxBlock signs_of(const Rotation& rotation, int index, int64_t chunk) {
  return rotation.drawn ? drawn_signs(rotation.signs, index, chunk) : fixed_signs(rotation.points, index);
}

// Rotates a run. All lanes of a warp must call it. `run` is the run among the eight of a row; `signs` holds the signs
// of each rotation, for these 128 positions.
template <class T>
__device__ __forceinline__ void rotate_run(const Rotation& rotation, const PhiloxBlock* signs, int run,
                                           float (&values)[run_length]) {
  if (rotation.points == 0) return;
  const bool sixteen = rotation.points == hadamard_points;
  if (sixteen && !std::is_same_v<T, BFloat16>) round_to_bf16(values);
  for (int index = 0; index < rotation.count; ++index) {
    const uint32_t negative = signs[index].word[run / 2] >> (run % 2 * run_length);
    const float magnitude = hadamard_factor(0, rotation.points);
    for (int i = 0; i < run_length; ++i) values[i] *= ((negative >> i) & 1u) != 0 ? -magnitude : magnitude;
    butterflies(values, run_length);
    for (int stride = run_length; stride < rotation.points; stride *= 2) {
      const int distance = stride / run_length;
      const bool lower = (run & distance) != 0;
      for (float& value : values) {
        const float other = __shfl_xor_sync(all_lanes, value, distance);
        value = other + (lower ? -value : value);  // a + b, and b's place: a - b
      }
    }
  }
  if (sixteen) round_to_bf16(values);
}

}  // namespace nibble::cuda
