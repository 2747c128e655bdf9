// MS-EDEN, one block a thread, in the arithmetic of quant/quantize/cpu/cast_eden.cpp.
#pragma once

#include "quant/format/block_rules.h"
#include "quant/format/hardware_conversions.cuh"
#include "quant/quantize/cuda/quantize_operand.cuh"

namespace nibble::cuda {

// A block whose values times `factor` were rounded to nearest: its codes, and the two products that S is made of.
struct NearestBlock {
  uint4 codes;
  float squares, products;
};
__device__ __forceinline__ NearestBlock encode_nearest(const float (&values)[run_length], float factor) {
  float scaled[run_length];
  float squares = 0;
  float products = 0;
  for (int i = 0; i < run_length; ++i) {
    scaled[i] = values[i] * factor;
    const float magnitude = absolute(scaled[i]);
    squares += scaled[i] * scaled[i];
    products += magnitude * e2m1_round_magnitude(magnitude);
  }
  return {make_uint4(e2m1_nearest_eight(scaled), e2m1_nearest_eight(scaled + 8), 0, 0), squares, products};
}

// Gives the eight blocks of 128 elements one correction, in which each counts by its squared scale, or all count alike.
__device__ __forceinline__ void share_correction(float scale, bool weighted, NearestBlock& block) {
  const float weight = weighted ? scale * scale : 1.0f;
  const float own_squares = weight * block.squares;
  const float own_products = weight * block.products;
  block.squares = block.products = 0;
  for (int lane = 0; lane < runs_across; ++lane) {
    block.squares += __shfl_sync(all_lanes, own_squares, lane, runs_across);
    block.products += __shfl_sync(all_lanes, own_products, lane, runs_across);
  }
}

__device__ __forceinline__ uint32_t first_noise_word(const OperandCast& operand, int64_t row, int64_t block) {
  return random_block(operand.noise, static_cast<uint64_t>(row * (operand.inner / run_length) + block)).word[0];
}

// Casts with the tensor scale first: Algorithm 1 of the paper.
__device__ __forceinline__ CastRun cast_scale_first(const OperandCast& operand, const CastRules& rules,
                                                    const TensorScale& tensor, const Run& run) {
  const float multiplier = tensor.encode * operand.reciprocal_range;
  const uint32_t code = block_scale_nearest(float_of_bits(amax_bits(run.values)) * multiplier);
  const float scale = e4m3_to_float(code);
  NearestBlock block = encode_nearest(run.values, code == 0 ? 0.0f : element_encode_scale(code, tensor.decode));
  if (rules.correction != EdenCorrection::per_16) {
    share_correction(scale, rules.correction == EdenCorrection::per_128, block);
  }
  const float correction = eden_correction(block.squares, block.products);
  const uint32_t noise = first_noise_word(operand, run.row, run.position / run_length);
  return {block.codes, e4m3_stochastic(correction * scale, noise >> 8), 0};
}

// Casts with the tensor scale last: post hoc range alignment. round_corrected_scale() finishes it.
__device__ __forceinline__ CastRun cast_post_hoc(const OperandCast& operand, const CastRules& rules, const Run& run) {
  const bool published = rules.correction == EdenCorrection::post_hoc_published;
  const float pseudo = pseudo_scale(amax_bits(run.values), operand.reciprocal_range, published);
  const NearestBlock block = encode_nearest(run.values, pseudo_encode_scale(pseudo));
  return {block.codes, 0, corrected_scale(pseudo, eden_correction(block.squares, block.products), published)};
}

__device__ __forceinline__ uint32_t round_corrected_scale(const OperandCast& operand, const TensorScale& tensor,
                                                          int64_t row, int64_t block) {
  const float scaled = operand.corrected[row * (operand.inner / run_length) + block] * tensor.encode;
  const uint32_t noise = first_noise_word(operand, row, block);
  return operand.rules.correction == EdenCorrection::post_hoc_published ? e4m3_stochastic_published(scaled, noise)
                                                                        : e4m3_stochastic(scaled, noise >> 8);
}

}  // namespace nibble::cuda
