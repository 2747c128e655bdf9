// NVFP4 with rounding to nearest and stochastic rounding, under every rule for the block scale but MS-EDEN's.
#pragma once

#include "tests/quant/reference_codec.h"
#include "tests/quant/reference_problem.h"

namespace nibble::test {

// A block: 16 elements of one row, or of 16 rows.
struct ReferenceBlock {
  int64_t first_row = 0, last_row = 0;
  int64_t block = 0;  // index within the row
};

inline ReferenceBlock reference_block(const ReferenceProblem& problem, int64_t row, int64_t block) {
  const bool square = problem.spec.block == BlockShape::square;
  const int64_t first = square ? row / 16 * 16 : row;
  return {first, square ? first + 16 : row + 1, block};
}

inline float reference_block_amax(const ReferenceProblem& problem, const ReferenceBlock& block) {
  float largest = 0;
  for (int64_t row = block.first_row; row < block.last_row; ++row) {
    for (int i = 0; i < 16; ++i) largest = std::max(largest, std::fabs(problem.at(row, block.block * 16 + i)));
  }
  return largest;
}

inline float default_range(const OperandSpec& spec) {
  if (spec.range != 0) return spec.range;
  return spec.round == Rounding::ms_eden ? 6.0f * 16.0f / 17.0f / 0.93f : 6.0f;
}
inline float default_ceiling(const OperandSpec& spec) {
  if (spec.ceiling != 0) return spec.ceiling;
  if (spec.round == Rounding::ms_eden) return spec.correction == EdenCorrection::post_hoc ? 448.0f : 256.0f;
  return spec.scale == ScaleRule::amax ? 448.0f : 256.0f;
}
inline float reference_largest(const OperandSpec& spec) {
  const float largest = default_range(spec) * default_ceiling(spec);
  return spec.round == Rounding::stochastic ? largest * 16.0f / 17.0f : largest;
}

// Returns the factor of the elements under a scale.
inline float reference_element_factor(int scale, const ReferenceScale& above) {
  return at_most_largest(1.0f / (static_cast<float>(reference_e4m3_value(scale)) * above.decode));
}

constexpr uint64_t second_noise_stream = uint64_t{1} << 39;

// Returns the code of an element; `noise_base` is added to the index of its block in the noise stream.
inline int reference_code(const ReferenceProblem& problem, double scaled, int64_t row, int64_t position,
                          uint64_t noise_base) {
  if (problem.spec.round == Rounding::nearest) return reference_e2m1(scaled, problem.mistakes.e2m1_ties_away);
  const auto index = static_cast<uint64_t>(row * (problem.inner / 16) + position / 16) + noise_base;
  const int byte = reference_byte(problem.noise, index, static_cast<int>(position % 16));
  return reference_e2m1_stochastic(scaled, byte, problem.spec.round == Rounding::stochastic);
}

// Returns the error of a block under a scale, in units of the FP32 scale above it. In a square block each element's
// error is first added to that of the element across the diagonal, then the columns of a row, then the rows in order;
// so the block and its transpose have the same error.
inline float reference_error(const ReferenceProblem& problem, const ReferenceBlock& block, const ReferenceScale& above,
                             int scale, uint64_t noise_base) {
  const ScaleRule rule = problem.spec.scale;
  const auto scale_value = static_cast<float>(reference_e4m3_value(scale));
  const float factor = reference_element_factor(scale, above);
  const auto combined = [&](float a, float b) {
    return rule == ScaleRule::four_over_six_abs_max ? std::max(a, b) : a + b;
  };
  const auto error_at = [&](int64_t row, int64_t position) {
    const float magnitude = std::fabs(problem.at(row, position));
    const int code = reference_code(problem, double{magnitude * factor}, row, position, noise_base);
    const float rounded = static_cast<float>(reference_e2m1_value(code)) * scale_value;
    const float difference = std::fabs(magnitude * above.encode - rounded);
    const bool squared = rule == ScaleRule::four_over_six || rule == ScaleRule::search;
    return squared ? difference * difference : difference;
  };
  const int64_t first = block.block * 16;
  const bool tile = block.last_row - block.first_row == 16;
  float total = 0;
  for (int64_t row = block.first_row; row < block.last_row; ++row) {
    float of_row = 0;
    for (int64_t position = first; position < first + 16; ++position) {
      const float error = error_at(row, position);
      const int64_t across_row = block.first_row + position - first;
      of_row = combined(of_row, tile ? combined(error, error_at(across_row, first + row - block.first_row)) : error);
    }
    total = tile ? combined(total, of_row) : of_row;
  }
  return total;
}

struct ChosenReferenceScale {
  int byte = 0;
  uint64_t noise_base = 0;
};

inline int plain_scale(const ReferenceProblem& problem, float d) {
  return problem.spec.round == Rounding::stochastic ? reference_guarded_scale(d)
                                                    : reference_e4m3(d, problem.mistakes.e4m3_ties_away);
}

inline ChosenReferenceScale reference_four_over_six(const ReferenceProblem& problem, const ReferenceBlock& block,
                                                    const ReferenceScale& above, float d) {
  const uint64_t noise_base = problem.spec.round == Rounding::stochastic ? second_noise_stream : 0;
  const int six = plain_scale(problem, d);
  const int four = plain_scale(problem, at_most_largest(d * 1.5f));
  const float error_six = reference_error(problem, block, above, six, 0);
  const float error_four = reference_error(problem, block, above, four, noise_base);
  return error_four < error_six ? ChosenReferenceScale{four, noise_base} : ChosenReferenceScale{six, 0};
}

inline int reference_search(const ReferenceProblem& problem, const ReferenceBlock& block, const ReferenceScale& above,
                            float d) {
  const int first = reference_e4m3(d * 0.85f);
  const int last = reference_e4m3(at_most_largest(d * 1.55f));
  int best = first;
  for (int scale = first + 1; scale <= last; ++scale) {
    if (reference_error(problem, block, above, scale, 0) < reference_error(problem, block, above, best, 0))
      best = scale;
  }
  return best;
}

inline int reference_rms_scale(const ReferenceProblem& problem, const ReferenceBlock& block,
                               const ReferenceScale& above) {
  float squares = 0;
  for (int64_t position = block.block * 16; position < block.block * 16 + 16; ++position) {
    const float value = problem.at(block.first_row, position) * above.encode;
    squares = squares + value * value;
  }
  return reference_e4m3(std::sqrt(squares * 0.0625f) * (2.92247856f / 6.0f));
}

inline ChosenReferenceScale reference_choose(const ReferenceProblem& problem, const ReferenceBlock& block,
                                             const ReferenceScale& above) {
  const Mistakes& wrong = problem.mistakes;
  const float block_amax = reference_block_amax(problem, block);
  const float reciprocal = 1.0f / default_range(problem.spec);
  const float multiplier = wrong.divide_scale_by_six ? above.encode / 6.0f : above.encode * reciprocal;
  const float d =
      at_most_largest(wrong.divide_block_amax_first ? block_amax / 6.0f * above.encode : block_amax * multiplier);
  switch (problem.spec.scale) {
    case ScaleRule::four_over_six:
    case ScaleRule::four_over_six_mae:
    case ScaleRule::four_over_six_abs_max: return reference_four_over_six(problem, block, above, d);
    case ScaleRule::search: return {reference_search(problem, block, above, d), 0};
    case ScaleRule::rms: return {reference_rms_scale(problem, block, above), 0};
    default: break;
  }
  if (wrong.double_precision) return {reference_e4m3(block_amax / 6.0 * (2688.0 / above.amax)), 0};
  return {plain_scale(problem, d), 0};
}

inline void reference_nvfp4_block(const ReferenceProblem& problem, int64_t row, int64_t block_index,
                                  const ReferenceScale& above, ReferenceResult& result) {
  const ReferenceBlock block = reference_block(problem, row, block_index);
  const ChosenReferenceScale chosen = reference_choose(problem, block, above);
  result.scales.push_back(static_cast<uint8_t>(chosen.byte));
  const float factor = problem.mistakes.encode_by_quotient
                           ? at_most_largest(above.encode / static_cast<float>(reference_e4m3_value(chosen.byte)))
                           : reference_element_factor(chosen.byte, above);
  for (int64_t position = block_index * 16; position < block_index * 16 + 16; ++position) {
    const float element = problem.at(row, position);
    double scaled = double{element * factor};
    if (problem.mistakes.double_precision) {
      const double exact = 2688.0 / above.amax / reference_e4m3_value(chosen.byte);
      scaled = element * std::min(exact, double{std::numeric_limits<float>::max()});
    }
    store_code(problem, row, position, reference_code(problem, scaled, row, position, chosen.noise_base), result);
  }
}

inline void reference_nvfp4(const ReferenceProblem& problem, ReferenceResult& result) {
  const float largest = reference_largest(problem.spec);
  ReferenceScale above = reference_tensor_scale(result.amax, largest);
  result.encode = above.encode;
  result.decode = above.decode;
  const bool outer = problem.spec.outer == OuterScale::row_128;
  if (outer) result.decode = 1;
  for (int64_t row = 0; row < problem.rows; ++row) {
    for (int64_t block = 0; block < problem.inner / 16; ++block) {
      if (outer && block % 8 == 0) {
        float amax = 0;
        for (int64_t i = 0; i < 128; ++i) amax = std::max(amax, std::fabs(problem.at(row, block * 16 + i)));
        above = reference_tensor_scale(amax, largest);
        result.outer.push_back(above.decode);
      }
      reference_nvfp4_block(problem, row, block, above, result);
    }
  }
}

}  // namespace nibble::test
