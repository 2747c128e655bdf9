// NVFP4 with rounding to nearest and stochastic rounding, under every rule for the block scale but MS-EDEN's.
#include <limits>

#include "quant/format/block_rules.h"
#include "quant/quantize/cpu/cast_blocks.h"

namespace nibble::cpu {
namespace {

constexpr int block_size = 16;
using BlockValues = const float (*)[lanes];  // [16 positions][16 lanes]

// The FP32 scale above the block scales: that of the tensor, or that of each lane's 128 elements.
struct LaneScale {
  LaneFloats encode, decode;
  LaneFloats multiplier;  // block amax * multiplier is rounded to E4M3
};

NIBBLE_INLINE void set_lane(LaneScale& scale, int lane, const TensorScale& from, float reciprocal_range) {
  scale.encode.value[lane] = from.encode;
  scale.decode.value[lane] = from.decode;
  scale.multiplier.value[lane] = from.encode * reciprocal_range;
}

// Returns one error for a square block, by a sum that is the same for its transpose: W and W^T must choose the same
// scale. The pairs [i][j] + [j][i] come first, then they are added position by position, then lane by lane.
template <ErrorMetric metric>
NIBBLE_INLINE float tile_error(const float (&errors)[lanes][lanes]) {
  LaneFloats sums{};
  for (int position = 0; position < lanes; ++position) {
    for (int lane = 0; lane < lanes; ++lane) {
      const float pair = combined_error(metric, errors[position][lane], errors[lane][position]);
      sums.value[lane] = combined_error(metric, sums.value[lane], pair);
    }
  }
  float whole = 0;
  for (const float sum : sums.value) whole = combined_error(metric, whole, sum);
  return whole;
}

// Finds the error of every lane's block under a candidate scale, in units of the tensor scale. A square block has one
// error.
template <ErrorMetric metric, class Round>
NIBBLE_INLINE void candidate_error(BlockValues values, const LaneScale& tensor, const LaneWords& candidate, bool square,
                                   Round round, LaneFloats& error) {
  LaneFloats scale;
  LaneFloats encode;
  for (int lane = 0; lane < lanes; ++lane) {
    scale.value[lane] = e4m3_to_float(candidate.word[lane]);
    encode.value[lane] = element_encode_scale(candidate.word[lane], tensor.decode.value[lane]);
    error.value[lane] = 0;
  }
  alignas(64) float errors[block_size][lanes];
  for (int position = 0; position < block_size; ++position) {
    for (int lane = 0; lane < lanes; ++lane) {
      const float magnitude = absolute(values[position][lane]);
      const float rounded = round(position, lane, magnitude * encode.value[lane]) * scale.value[lane];
      errors[position][lane] = error_of(metric, magnitude * tensor.encode.value[lane] - rounded);
      error.value[lane] = combined_error(metric, error.value[lane], errors[position][lane]);
    }
  }
  if (!square) return;
  const float whole = tile_error<metric>(errors);
  for (float& value : error.value) value = whole;
}

struct ChosenScale {
  LaneWords code;
  LaneWords four;  // ~0 where four over six chose its second candidate, else 0
};

// Four over six puts the block maximum at `range` or at two thirds of it; the first wins ties.
template <ErrorMetric metric, bool guarded, class Round, class RoundFour>
NIBBLE_INLINE void choose_of_two(BlockValues values, const LaneScale& tensor, const LaneFloats& d, bool square,
                                 Round round, RoundFour round_four, ChosenScale& chosen) {
  LaneWords six;
  LaneWords four;
  for (int lane = 0; lane < lanes; ++lane) {
    const float enlarged = d.value[lane] * 1.5f;
    six.word[lane] = guarded ? block_scale_guarded(d.value[lane]) : block_scale_nearest(d.value[lane]);
    four.word[lane] = guarded ? block_scale_guarded(enlarged) : block_scale_nearest(enlarged);
  }
  LaneFloats error_six;
  LaneFloats error_four;
  candidate_error<metric>(values, tensor, six, square, round, error_six);
  candidate_error<metric>(values, tensor, four, square, round_four, error_four);
  for (int lane = 0; lane < lanes; ++lane) {
    const bool better = error_four.value[lane] < error_six.value[lane];
    chosen.code.word[lane] = better ? four.word[lane] : six.word[lane];
    chosen.four.word[lane] = better ? ~0u : 0u;
  }
}

// Searches the scale of least error; of equal errors the smaller scale wins.
template <class Round>
NIBBLE_INLINE void search_scale(BlockValues values, const LaneScale& tensor, const LaneFloats& d, bool square,
                                Round round, LaneWords& scales) {
  LaneWords last;
  LaneWords candidate;
  LaneFloats least;
  for (int lane = 0; lane < lanes; ++lane) {
    candidate.word[lane] = block_scale_nearest(d.value[lane] * search_first);
    last.word[lane] = block_scale_nearest(d.value[lane] * search_last);
    scales.word[lane] = candidate.word[lane];
    least.value[lane] = std::numeric_limits<float>::infinity();
  }
  for (int step = 0; step < search_candidates; ++step) {
    LaneFloats error;
    candidate_error<ErrorMetric::squared>(values, tensor, candidate, square, round, error);
    for (int lane = 0; lane < lanes; ++lane) {
      const bool better = candidate.word[lane] <= last.word[lane] && error.value[lane] < least.value[lane];
      scales.word[lane] = better ? candidate.word[lane] : scales.word[lane];
      least.value[lane] = better ? error.value[lane] : least.value[lane];
      candidate.word[lane] += candidate.word[lane] < 0x7Eu ? 1u : 0u;
    }
  }
}

NIBBLE_INLINE void rms_scale(BlockValues values, const LaneScale& tensor, LaneWords& scales) {
  LaneFloats squares{};
  for (int position = 0; position < block_size; ++position) {
    for (int lane = 0; lane < lanes; ++lane) {
      const float value = values[position][lane] * tensor.encode.value[lane];
      squares.value[lane] += value * value;
    }
  }
  for (int lane = 0; lane < lanes; ++lane) {
    scales.word[lane] = block_scale_nearest(rms_target(squares.value[lane], 0.0625f));
  }
}

template <bool guarded, class Round, class RoundFour>
NIBBLE_INLINE void choose_scale(const OperandSpec& spec, BlockValues values, const LaneScale& tensor, Round round,
                                RoundFour round_four, ChosenScale& chosen) {
  chosen.four = LaneWords{};
  LaneWords amax;
  lane_amax(values, block_size, amax);
  const bool square = spec.block == BlockShape::square;
  if (square) {
    const uint32_t largest = largest_of(amax);
    for (uint32_t& word : amax.word) word = largest;
  }
  LaneFloats d;
  for (int lane = 0; lane < lanes; ++lane) {
    d.value[lane] = bounded_block_scale(amax.word[lane], tensor.multiplier.value[lane]);
  }
  switch (spec.scale) {
    case ScaleRule::four_over_six:
      return choose_of_two<ErrorMetric::squared, guarded>(values, tensor, d, square, round, round_four, chosen);
    case ScaleRule::four_over_six_mae:
      return choose_of_two<ErrorMetric::absolute, guarded>(values, tensor, d, square, round, round_four, chosen);
    case ScaleRule::four_over_six_abs_max:
      return choose_of_two<ErrorMetric::largest, guarded>(values, tensor, d, square, round, round_four, chosen);
    case ScaleRule::search: return search_scale(values, tensor, d, square, round, chosen.code);
    case ScaleRule::rms: return rms_scale(values, tensor, chosen.code);
    case ScaleRule::amax:
    case ScaleRule::amax_up: break;
  }
  for (int lane = 0; lane < lanes; ++lane) {
    chosen.code.word[lane] = guarded ? block_scale_guarded(d.value[lane]) : block_scale_nearest(d.value[lane]);
  }
}

// Encodes one block of every lane. encode(position, lane, value) returns a code.
template <class Encode>
NIBBLE_INLINE void encode_block(BlockValues values, const LaneScale& tensor, const LaneWords& scales, Encode encode,
                                PackedCodes& packed) {
  LaneFloats factor;
  for (int lane = 0; lane < lanes; ++lane) {
    factor.value[lane] = element_encode_scale(scales.word[lane], tensor.decode.value[lane]);
  }
  const auto code = [&](int position, int lane) __attribute__((always_inline)) {
    return encode(position, lane, values[position][lane] * factor.value[lane]);
  };
  pack_codes(code, packed);
}

template <Rounding rounding>
NIBBLE_INLINE void cast_block(const CastProblem& problem, BlockValues values, const LaneScale& tensor, int64_t row,
                              int64_t block, LaneWords& scales, PackedCodes& packed) {
  ChosenScale chosen;
  if constexpr (rounding == Rounding::nearest) {
    const auto round = [](int, int, float magnitude) __attribute__((always_inline)) {
      return e2m1_round_magnitude(magnitude);
    };
    choose_scale<false>(problem.spec, values, tensor, round, round, chosen);
    encode_block(
        values, tensor, chosen.code,
        [](int, int, float value) __attribute__((always_inline)) { return e2m1_nearest(value); }, packed);
    scales = chosen.code;
    return;
  }
  LaneWords noise[4];
  const int64_t blocks = problem.inner / block_size;
  draw_noise(problem.noise, row * blocks + block, blocks, noise);
  if constexpr (rounding == Rounding::stochastic) {
    LaneWords noise_four[4] = {};
    const bool chooses = problem.spec.scale != ScaleRule::amax;
    if (chooses) draw_noise(problem.noise, second_noise + row * blocks + block, blocks, noise_four);
    const auto round = [&noise](int position, int lane, float magnitude) __attribute__((always_inline)) {
      return e2m1_to_float(e2m1_stochastic_centred(magnitude, noise_byte(noise, position, lane)));
    };
    const auto round_four = [&noise_four](int position, int lane, float magnitude) __attribute__((always_inline)) {
      return e2m1_to_float(e2m1_stochastic_centred(magnitude, noise_byte(noise_four, position, lane)));
    };
    choose_scale<true>(problem.spec, values, tensor, round, round_four, chosen);
    for (int word = 0; chooses && word < 4; ++word) {
      for (int lane = 0; lane < lanes; ++lane) {
        const uint32_t four = chosen.four.word[lane];
        noise[word].word[lane] = (noise[word].word[lane] & ~four) | (noise_four[word].word[lane] & four);
      }
    }
    encode_block(
        values, tensor, chosen.code,
        [&noise](int position, int lane, float value) __attribute__((always_inline)) {
          return e2m1_stochastic_centred(value, noise_byte(noise, position, lane));
        },
        packed);
  } else {
    const auto round = [](int, int, float magnitude) __attribute__((always_inline)) {
      return magnitude;
    };
    choose_scale<false>(problem.spec, values, tensor, round, round, chosen);
    encode_block(
        values, tensor, chosen.code,
        [&noise](int position, int lane, float value) __attribute__((always_inline)) {
          return e2m1_stochastic_published(value, noise_byte(noise, position, lane));
        },
        packed);
  }
  scales = chosen.code;
}

// Finds the scales above the blocks: those of 128 elements where the recipe says so, which are stored. Returns the bits
// of the largest amax of those, else 0.
NIBBLE_INLINE uint32_t outer_scale(const CastProblem& problem, const RowBlockBounds& bounds, const RowBlock& row_block,
                                   float range, float largest, LaneScale& tensor) {
  if (problem.outer_scales == nullptr) {
    for (int lane = 0; lane < lanes; ++lane) set_lane(tensor, lane, scale_of_lane(problem, lane), 1.0f / range);
    return 0;
  }
  LaneWords amax;
  lane_amax(row_block.value, bounds.positions, amax);
  for (int lane = 0; lane < lanes; ++lane) {
    set_lane(tensor, lane, tensor_scale_of(float_of_bits(amax.word[lane]), largest), 1.0f / range);
  }
  const int64_t present = lanes_present(problem, bounds.row);
  for (int64_t lane = 0; lane < present; ++lane) {
    problem.outer_scales[(bounds.row + lane) * (problem.inner / row_block_positions) +
                         bounds.position / row_block_positions] = tensor.decode.value[lane];
  }
  return largest_of(amax);
}

struct Targets {
  float range = 6;
  float largest = 2688;
};

template <Rounding rounding>
NIBBLE_INLINE uint32_t cast_row_block(const CastProblem& problem, const Targets& targets, const RowBlockBounds& bounds,
                                      const RowBlock& row_block) {
  LaneScale tensor;
  const uint32_t amax = outer_scale(problem, bounds, row_block, targets.range, targets.largest, tensor);
  for (int first = 0; first < bounds.positions; first += block_size) {
    const int64_t block = (bounds.position + first) / block_size;
    LaneWords scales;
    PackedCodes packed;
    cast_block<rounding>(problem, row_block.value + first, tensor, bounds.row, block, scales, packed);
    store_codes(problem, bounds.row, bounds.position + first, packed);
    store_block_scales(problem, bounds.row, block, problem.inner / block_size, scales);
  }
  return amax;
}

NIBBLE_VECTORIZE uint32_t cast_nearest(const CastProblem& problem, const Targets& targets, const RowBlockBounds& bounds,
                                       const RowBlock& row_block) {
  return cast_row_block<Rounding::nearest>(problem, targets, bounds, row_block);
}
NIBBLE_VECTORIZE uint32_t cast_stochastic(const CastProblem& problem, const Targets& targets,
                                          const RowBlockBounds& bounds, const RowBlock& row_block) {
  return cast_row_block<Rounding::stochastic>(problem, targets, bounds, row_block);
}
NIBBLE_VECTORIZE uint32_t cast_published(const CastProblem& problem, const Targets& targets,
                                         const RowBlockBounds& bounds, const RowBlock& row_block) {
  return cast_row_block<Rounding::stochastic_published>(problem, targets, bounds, row_block);
}

}  // namespace

RowBlockMaxima cast_nvfp4(const CastProblem& problem, const RowBlockBounds& bounds, const RowBlock& row_block) {
  const Targets targets{range_of(problem.spec), largest_of_tensor(problem.spec)};
  switch (problem.spec.round) {
    case Rounding::nearest: return {cast_nearest(problem, targets, bounds, row_block), 0};
    case Rounding::stochastic: return {cast_stochastic(problem, targets, bounds, row_block), 0};
    default: return {cast_published(problem, targets, bounds, row_block), 0};
  }
}

}  // namespace nibble::cpu
