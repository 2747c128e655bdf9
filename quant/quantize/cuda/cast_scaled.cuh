// MXFP4, MXFP8 (two lanes a block) and FP8, 16 elements a thread, in the arithmetic of
// quant/quantize/cpu/cast_scaled.cpp.
#pragma once

#include "quant/format/block_rules.h"
#include "quant/format/hardware_conversions.cuh"
#include "quant/quantize/cuda/quantize_operand.cuh"

namespace nibble::cuda {

// Encodes 16 values in codes of a byte each.
__device__ __forceinline__ uint4 encode_bytes(ElementCode element, const float (&scaled)[run_length]) {
  uint32_t words[4];
  for (int i = 0; i < 4; ++i) {
    words[i] = element == ElementCode::e5m2 ? e5m2_nearest_four(scaled + 4 * i) : e4m3_nearest_four(scaled + 4 * i);
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}

__device__ __forceinline__ float add_squares(float sum, const float (&values)[run_length], float unit) {
  for (const float each : values) {
    const float value = each * unit;
    sum += value * value;
  }
  return sum;
}

// Returns the MX scale of the root mean square. The squares of 32 elements are added in order: those of the even lane,
// then those of the odd one.
__device__ __forceinline__ uint32_t mx_rms_scale(const float (&values)[run_length], uint32_t amax) {
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  const uint32_t power = e8m0_down(float_of_bits(amax));
  const float unit = e8m0_to_float(254u - power);
  const float first_half = __shfl_sync(all_lanes, add_squares(0, values, unit), lane & ~1);
  const float whole = __shfl_sync(all_lanes, add_squares(first_half, values, unit), lane | 1);
  return mx_scale_rms(power, whole);
}

__device__ __forceinline__ uint32_t mx_scale(const CastRules& rules, const float (&values)[run_length]) {
  const uint32_t amax = largest_of_lanes(amax_bits(values), 2);
  if (rules.scale == ScaleRule::amax) return mx_scale_amax(amax, exponent_of_largest(rules.element));
  if (rules.scale == ScaleRule::rms) return mx_rms_scale(values, amax);
  const float reciprocal = rules.element == ElementCode::e2m1   ? 1.0f / 6.0f
                           : rules.element == ElementCode::e4m3 ? 1.0f / e4m3_max
                                                                : 1.0f / e5m2_max;
  return mx_scale_amax_up(amax, reciprocal);
}

__device__ __forceinline__ CastRun cast_mx(const OperandCast& operand, const CastRules& rules, const Run& run) {
  const bool stochastic = rules.round == Rounding::stochastic;
  const uint32_t scale = mx_scale(rules, run.values);
  const float factor = mx_encode_scale(scale, stochastic);
  float scaled[run_length];
  for (int i = 0; i < run_length; ++i) scaled[i] = run.values[i] * factor;
  if (rules.element != ElementCode::e2m1) return {encode_bytes(rules.element, scaled), scale, 0};
  if (!stochastic) return {make_uint4(e2m1_nearest_eight(scaled), e2m1_nearest_eight(scaled + 8), 0, 0), scale, 0};
  // One Philox block serves 16 elements.
  const int64_t index = run.row * (operand.inner / run_length) + run.position / run_length;
  const PhiloxBlock noise = random_block(operand.noise, static_cast<uint64_t>(index));
  return {pack_codes([&](int i) { return e2m1_stochastic_centred(scaled[i], random_byte(noise, i)); }), scale, 0};
}

__device__ __forceinline__ CastRun cast_fp8(const CastRules& rules, const TensorScale& tensor, const Run& run) {
  float scaled[run_length];
  for (int i = 0; i < run_length; ++i) scaled[i] = run.values[i] * tensor.encode;
  return {encode_bytes(rules.element, scaled), 0, 0};
}

}  // namespace nibble::cuda
