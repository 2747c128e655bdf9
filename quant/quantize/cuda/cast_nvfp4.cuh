// NVFP4 with rounding to nearest and stochastic rounding, one block a thread, in the arithmetic of
// quant/quantize/cpu/cast_nvfp4.cpp.
#pragma once

#include "quant/format/block_rules.h"
#include "quant/format/hardware_conversions.cuh"
#include "quant/quantize/cuda/quantize_operand.cuh"

namespace nibble::cuda {

// The FP32 scale above a block: that of the tensor, or that of 128 elements.
struct UpperScale {
  float encode, decode;
  float multiplier;  // block amax * multiplier is rounded to E4M3
};

// Transposes the 16x16 matrix whose row r is held by lane r of 16.
__device__ __forceinline__ void transpose_among_lanes(float (&values)[run_length]) {
  const int lane = static_cast<int>(threadIdx.x) % run_length;
  for (int bit = 1; bit < run_length; bit *= 2) {
    const bool upper = (lane & bit) != 0;
    for (int i = 0; i < run_length; ++i) {
      if ((i & bit) != 0) continue;
      const float received = __shfl_xor_sync(all_lanes, upper ? values[i] : values[i | bit], bit);
      values[i] = upper ? received : values[i];
      values[i | bit] = upper ? values[i | bit] : received;
    }
  }
}

// Returns one error for a square block, by a sum that is the same for its transpose: first the pairs [i][j] + [j][i]
// are added, then position by position, then row by row.
__device__ __forceinline__ float square_error(ErrorMetric metric, const float (&errors)[run_length]) {
  float mirrored[run_length];
  for (int i = 0; i < run_length; ++i) mirrored[i] = errors[i];
  transpose_among_lanes(mirrored);
  float of_row = 0;
  for (int i = 0; i < run_length; ++i) {
    of_row = combined_error(metric, of_row, combined_error(metric, errors[i], mirrored[i]));
  }
  float whole = 0;
  for (int row = 0; row < run_length; ++row) {
    whole = combined_error(metric, whole, __shfl_sync(all_lanes, of_row, row, run_length));
  }
  return whole;
}

// Returns the error of a block under a candidate scale, in units of the scale above. round(i, magnitude) returns the
// rounded value of element i.
template <class Round>
__device__ __forceinline__ float candidate_error(const float (&values)[run_length], const UpperScale& upper,
                                                 uint32_t candidate, ErrorMetric metric, bool square, Round round) {
  const float scale = e4m3_to_float(candidate);
  const float encode = element_encode_scale(candidate, upper.decode);
  float errors[run_length];
  for (int i = 0; i < run_length; ++i) {
    const float magnitude = absolute(values[i]);
    const float rounded = round(i, magnitude * encode) * scale;
    errors[i] = error_of(metric, magnitude * upper.encode - rounded);
  }
  if (square) return square_error(metric, errors);
  float error = 0;
  for (const float each : errors) error = combined_error(metric, error, each);
  return error;
}

struct ChosenScale {
  uint32_t code;
  bool four;  // four over six chose its second candidate
};

// Four over six puts the block maximum at `range` or at two thirds of it; the first wins ties.
template <bool guarded, class Round, class RoundFour>
__device__ __forceinline__ ChosenScale choose_of_two(const CastRules& rules, const float (&values)[run_length],
                                                     const UpperScale& upper, float d, Round round,
                                                     RoundFour round_four) {
  const ErrorMetric metric = rules.scale == ScaleRule::four_over_six       ? ErrorMetric::squared
                             : rules.scale == ScaleRule::four_over_six_mae ? ErrorMetric::absolute
                                                                           : ErrorMetric::largest;
  const float enlarged = d * 1.5f;
  const uint32_t six = guarded ? block_scale_guarded(d) : block_scale_nearest(d);
  const uint32_t four = guarded ? block_scale_guarded(enlarged) : block_scale_nearest(enlarged);
  const float error_six = candidate_error(values, upper, six, metric, rules.square, round);
  const float error_four = candidate_error(values, upper, four, metric, rules.square, round_four);
  const bool better = error_four < error_six;
  return {better ? four : six, better};
}

// Searches the scale of least error; of equal errors the smaller scale wins.
template <class Round>
__device__ __forceinline__ uint32_t search_scale(const float (&values)[run_length], const UpperScale& upper, float d,
                                                 bool square, Round round) {
  uint32_t candidate = block_scale_nearest(d * search_first);
  const uint32_t last = block_scale_nearest(d * search_last);
  uint32_t chosen = candidate;
  float least = float_of_bits(0x7F800000u);
#pragma unroll 1
  for (int step = 0; step < search_candidates; ++step) {
    const float error = candidate_error(values, upper, candidate, ErrorMetric::squared, square, round);
    const bool better = candidate <= last && error < least;
    chosen = better ? candidate : chosen;
    least = better ? error : least;
    candidate += candidate < 0x7Eu ? 1u : 0u;
  }
  return chosen;
}

__device__ __forceinline__ uint32_t rms_scale(const float (&values)[run_length], const UpperScale& upper) {
  float squares = 0;
  for (const float each : values) {
    const float value = each * upper.encode;
    squares += value * value;
  }
  return block_scale_nearest(rms_target(squares, 0.0625f));
}

template <bool guarded, class Round, class RoundFour>
__device__ __forceinline__ ChosenScale choose_scale(const CastRules& rules, const float (&values)[run_length],
                                                    const UpperScale& upper, Round round, RoundFour round_four) {
  uint32_t amax = amax_bits(values);
  if (rules.square) amax = largest_of_lanes(amax, run_length);
  const float d = bounded_block_scale(amax, upper.multiplier);
  switch (rules.scale) {
    case ScaleRule::four_over_six:
    case ScaleRule::four_over_six_mae:
    case ScaleRule::four_over_six_abs_max: return choose_of_two<guarded>(rules, values, upper, d, round, round_four);
    case ScaleRule::search: return {search_scale(values, upper, d, rules.square, round), false};
    case ScaleRule::rms: return {rms_scale(values, upper), false};
    case ScaleRule::amax:
    case ScaleRule::amax_up: break;
  }
  return {guarded ? block_scale_guarded(d) : block_scale_nearest(d), false};
}

__device__ __forceinline__ CastRun cast_block_nearest(const CastRules& rules, const float (&values)[run_length],
                                                      const UpperScale& upper) {
  const auto round = [](int, float magnitude) { return e2m1_round_magnitude(magnitude); };
  const uint32_t scale = choose_scale<false>(rules, values, upper, round, round).code;
  const float factor = element_encode_scale(scale, upper.decode);
  float scaled[run_length];
  for (int i = 0; i < run_length; ++i) scaled[i] = values[i] * factor;
  return {make_uint4(e2m1_nearest_eight(scaled), e2m1_nearest_eight(scaled + 8), 0, 0), scale, 0};
}

// Casts a block with stochastic rounding. `index` is the block's index in the operand.
__device__ __forceinline__ CastRun cast_block_stochastic(const CastRules& rules, const float (&values)[run_length],
                                                         const UpperScale& upper, const NoiseStream& stream,
                                                         int64_t index) {
  PhiloxBlock noise = random_block(stream, static_cast<uint64_t>(index));
  PhiloxBlock noise_four = noise;
  const bool chooses = rules.scale != ScaleRule::amax;
  if (chooses) noise_four = random_block(stream, static_cast<uint64_t>(second_noise + index));
  const auto round = [&](int i, float magnitude) {
    return e2m1_to_float(e2m1_stochastic_centred(magnitude, random_byte(noise, i)));
  };
  const auto round_four = [&](int i, float magnitude) {
    return e2m1_to_float(e2m1_stochastic_centred(magnitude, random_byte(noise_four, i)));
  };
  const ChosenScale chosen = choose_scale<true>(rules, values, upper, round, round_four);
  for (int word = 0; word < 4; ++word) {
    noise.word[word] = chosen.four ? noise_four.word[word] : noise.word[word];
  }
  const float factor = element_encode_scale(chosen.code, upper.decode);
  return {pack_codes([&](int i) { return e2m1_stochastic_centred(values[i] * factor, random_byte(noise, i)); }),
          chosen.code, 0};
}

__device__ __forceinline__ CastRun cast_block_published(const CastRules& rules, const float (&values)[run_length],
                                                        const UpperScale& upper, const NoiseStream& stream,
                                                        int64_t index) {
  const PhiloxBlock noise = random_block(stream, static_cast<uint64_t>(index));
  const auto round = [](int, float magnitude) { return magnitude; };
  const uint32_t scale = choose_scale<false>(rules, values, upper, round, round).code;
  const float factor = element_encode_scale(scale, upper.decode);
  return {pack_codes([&](int i) { return e2m1_stochastic_published(values[i] * factor, random_byte(noise, i)); }),
          scale, 0};
}

// Returns the scale above this lane's block: that of 128 elements where the recipe says so, which is stored, else that
// of the tensor.
__device__ __forceinline__ UpperScale upper_scale(const OperandCast& operand, const CastRules& rules,
                                                  const TensorScale& tensor, const Run& run) {
  TensorScale scale = tensor;
  if (rules.outer) {
    const uint32_t amax = largest_of_lanes(amax_bits(run.values), runs_across);
    scale = tensor_scale_of(float_of_bits(amax), operand.largest);
    if (run.present && run.lane_run == 0) {
      operand.outer_scales[run.row * (operand.inner / patch_side) + run.position / patch_side] = scale.decode;
    }
  }
  return {scale.encode, scale.decode, scale.encode * operand.reciprocal_range};
}

__device__ __forceinline__ CastRun cast_nvfp4(const OperandCast& operand, const CastRules& rules,
                                              const TensorScale& tensor, const Run& run) {
  const UpperScale upper = upper_scale(operand, rules, tensor, run);
  const int64_t index = run.row * (operand.inner / run_length) + run.position / run_length;
  switch (rules.round) {
    case Rounding::nearest: return cast_block_nearest(rules, run.values, upper);
    case Rounding::stochastic: return cast_block_stochastic(rules, run.values, upper, operand.noise, index);
    default: return cast_block_published(rules, run.values, upper, operand.noise, index);
  }
}

}  // namespace nibble::cuda
