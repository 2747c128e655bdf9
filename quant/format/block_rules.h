// The formulas that choose and correct the scale of one NVFP4 or MX block. The CPU's row blocks (one lane a block) and
// the threads of CUDA kernels share this one definition. docs/numerics.md section 3 states the formulas. Internal to
// quant.
#pragma once

#include <cmath>
#include <cstdint>

#include "quant/format/codec.h"
#include "quant/format/format.h"

namespace nibble {

// The error measure by which candidate scales are compared.
enum class ErrorMetric : uint8_t { squared, absolute, largest };

NIBBLE_HOST_DEVICE float error_of(ErrorMetric metric, float difference) {
  return metric == ErrorMetric::squared ? difference * difference : absolute(difference);
}
NIBBLE_HOST_DEVICE float combined_error(ErrorMetric metric, float a, float b) {
  return metric == ErrorMetric::largest ? (b > a ? b : a) : a + b;
}

// Four over six rounds its second candidate with noise of its own: it draws from the same stream, with bit 39 of the
// index set.
constexpr int64_t second_noise = int64_t{1} << 39;

// Returns d of docs/numerics.md 3.3. amax_bits: the bits of the block's largest magnitude.
NIBBLE_HOST_DEVICE float bounded_block_scale(uint32_t amax_bits, float multiplier) {
  const float scaled = float_of_bits(amax_bits) * multiplier;
  return scaled < float_max ? scaled : float_max;
}

// The scale search tries every E4M3 number from the one nearest to search_first * d to the one nearest to search_last *
// d.
constexpr float search_first = 0.85f;
constexpr float search_last = 1.55f;
constexpr int search_candidates = 9;  // at most so many

// Turns a root mean square into a scale: 6 stands for 2.92247856 standard deviations of a normal block (QuEST,
// arXiv:2502.05003).
NIBBLE_HOST_DEVICE float rms_target(float sum_of_squares, float reciprocal_count) {
  return std::sqrt(sum_of_squares * reciprocal_count) * (2.92247856f / 6.0f);
}

// ---- MS-EDEN ----

// Returns the correction S = <v, v>/<v, e>, v being the values and e what they were rounded to. squares = <v, v>,
// products = <v, e>.
NIBBLE_HOST_DEVICE float eden_correction(float squares, float products) {
  return products > 0.0f ? squares / products : 1.0f;
}

// Returns the block scale that the post-hoc correction uses before the tensor scale is known. `published` cuts it to 4
// bits of mantissa, as the paper's kernels do.
NIBBLE_HOST_DEVICE float pseudo_scale(uint32_t amax_bits, float reciprocal_range, bool published) {
  const uint32_t exact = bits_of(float_of_bits(amax_bits) * reciprocal_range);
  return float_of_bits(published ? exact & 0xFFF80000u : exact);
}
NIBBLE_HOST_DEVICE float pseudo_encode_scale(float pseudo) {
  const float reciprocal = 1.0f / pseudo;
  return reciprocal < float_max ? reciprocal : float_max;
}
NIBBLE_HOST_DEVICE float corrected_scale(float pseudo, float correction, bool published) {
  const float exact = pseudo * correction;
  return published ? to_float(bf16_nearest(exact)) : exact;
}

// Rounds as the kernels of the paper do: 16 bits of noise, and none for subnormal scales.
NIBBLE_HOST_DEVICE uint32_t e4m3_stochastic_published(float value, uint32_t noise) {
  const float magnitude = value < e4m3_max ? value : e4m3_max;
  const uint32_t normal = ((bits_of(magnitude) + ((noise & 0xFFFFu) << 4)) >> 20) - (120u << 3);
  return magnitude < e4m3_min_normal ? e4m3_nearest(magnitude) : normal;
}

// ---- MX ----

// Returns the exponent of an element's largest magnitude: OCP Microscaling Formats 1.0, section 6.3.
NIBBLE_HOST_DEVICE uint32_t exponent_of_largest(ElementCode element) {
  return element == ElementCode::e2m1 ? 2u : (element == ElementCode::e4m3 ? 8u : 15u);
}
NIBBLE_HOST_DEVICE uint32_t mx_scale_amax(uint32_t amax_bits, uint32_t reach) {
  const uint32_t power = e8m0_down(float_of_bits(amax_bits));
  return power > reach ? power - reach : 0u;
}
NIBBLE_HOST_DEVICE uint32_t mx_scale_amax_up(uint32_t amax_bits, float reciprocal_largest) {
  return e8m0_up(float_of_bits(amax_bits) * reciprocal_largest);
}
// Returns the E8M0 scale that the root mean square asks for. `power` is the E8M0 code of the block's amax: the squares
// of the block's 32 elements were taken in units of it, so that they neither overflow nor vanish.
NIBBLE_HOST_DEVICE uint32_t mx_scale_rms(uint32_t power, float sum_of_squares) {
  const uint32_t raised = power + e8m0_down(rms_target(sum_of_squares, 1.0f / 32.0f));  // the target is below 1
  return raised > 127u ? raised - 127u : 0u;
}
// Stochastic rounding takes the values times 3/4: a block below 8 times its scale then stays below 6.
NIBBLE_HOST_DEVICE float mx_encode_scale(uint32_t scale, bool stochastic) {
  return e8m0_to_float(254u - scale) * (stochastic ? 0.75f : 1.0f);
}

}  // namespace nibble
