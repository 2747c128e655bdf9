// NVFP4 with rounding to nearest and stochastic rounding, under every rule for the block scale but MS-EDEN's.
#include <cmath>
#include <limits>

#include "quant/cast_blocks.h"

namespace nibble::cpu {
namespace {

constexpr int block_size = 16;
using BlockValues = const float (*)[lanes];  // [16 positions][16 lanes]

// The FP32 scale above the block scales: of the tensor, or of each lane's 128 elements.
struct LaneScale {
  LaneFloats encode, decode;
  LaneFloats multiplier;  // block amax * multiplier is what is rounded to E4M3
};

NIBBLE_INLINE void set_lane(LaneScale& scale, int lane, const TensorScale& from, float reciprocal_range) {
  scale.encode.value[lane] = from.encode;
  scale.decode.value[lane] = from.decode;
  scale.multiplier.value[lane] = from.encode * reciprocal_range;
}

enum class Metric : uint8_t { squared, absolute, largest };

template <Metric metric>
NIBBLE_INLINE void include_error(float difference, float& error) {
  if constexpr (metric == Metric::squared) error += difference * difference;
  if constexpr (metric == Metric::absolute) error += absolute(difference);
  if constexpr (metric == Metric::largest) error = absolute(difference) > error ? absolute(difference) : error;
}

// Error of every lane's block under a candidate scale, in units of the tensor scale. A square tile has one error.
template <Metric metric, class Round>
NIBBLE_INLINE void candidate_error(BlockValues values, const LaneScale& tensor, const LaneWords& candidate, bool square,
                                   Round round, LaneFloats& error) {
  LaneFloats scale;
  LaneFloats encode;
  for (int lane = 0; lane < lanes; ++lane) {
    scale.value[lane] = e4m3_to_float(candidate.word[lane]);
    encode.value[lane] = element_encode_scale(candidate.word[lane], tensor.decode.value[lane]);
    error.value[lane] = 0;
  }
  for (int position = 0; position < block_size; ++position) {
    for (int lane = 0; lane < lanes; ++lane) {
      const float magnitude = absolute(values[position][lane]);
      const float rounded = round(position, lane, magnitude * encode.value[lane]) * scale.value[lane];
      include_error<metric>(magnitude * tensor.encode.value[lane] - rounded, error.value[lane]);
    }
  }
  if (!square) return;
  float whole = 0;
  for (const float value : error.value) {
    whole = metric == Metric::largest ? (value > whole ? value : whole) : whole + value;
  }
  for (float& value : error.value) value = whole;
}

// Four over six: the block maximum at `range` or at two thirds of it; the first wins ties.
template <Metric metric, bool guarded, class Round>
NIBBLE_INLINE void choose_of_two(BlockValues values, const LaneScale& tensor, const LaneFloats& d, bool square,
                                 Round round, LaneWords& scales) {
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
  candidate_error<metric>(values, tensor, four, square, round, error_four);
  for (int lane = 0; lane < lanes; ++lane) {
    scales.word[lane] = error_four.value[lane] < error_six.value[lane] ? four.word[lane] : six.word[lane];
  }
}

// The E4M3 numbers between 0.85 d and 1.55 d, of which there are at most eight; the smaller of equals.
template <class Round>
NIBBLE_INLINE void search_scale(BlockValues values, const LaneScale& tensor, const LaneFloats& d, bool square,
                                Round round, LaneWords& scales) {
  LaneWords first;
  LaneFloats least;
  for (int lane = 0; lane < lanes; ++lane) {
    first.word[lane] = e4m3_up(d.value[lane] * 0.85f);
    scales.word[lane] = block_scale_nearest(d.value[lane]);
    least.value[lane] = std::numeric_limits<float>::infinity();
  }
  for (uint32_t step = 0; step < 8; ++step) {
    LaneWords candidate;
    LaneFloats error;
    for (int lane = 0; lane < lanes; ++lane) {
      const uint32_t code = first.word[lane] + step;
      candidate.word[lane] = code < 0x7Eu ? code : 0x7Eu;
    }
    candidate_error<Metric::squared>(values, tensor, candidate, square, round, error);
    for (int lane = 0; lane < lanes; ++lane) {
      const bool in_reach = e4m3_to_float(candidate.word[lane]) <= d.value[lane] * 1.55f;
      const bool better = in_reach && error.value[lane] < least.value[lane];
      scales.word[lane] = better ? candidate.word[lane] : scales.word[lane];
      least.value[lane] = better ? error.value[lane] : least.value[lane];
    }
  }
}

// 2.92247856 standard deviations of a normal block at 6 (QuEST, arXiv:2502.05003).
NIBBLE_INLINE void rms_scale(BlockValues values, const LaneScale& tensor, LaneWords& scales) {
  LaneFloats squares{};
  for (int position = 0; position < block_size; ++position) {
    for (int lane = 0; lane < lanes; ++lane) {
      const float value = values[position][lane] * tensor.encode.value[lane];
      squares.value[lane] += value * value;
    }
  }
  for (int lane = 0; lane < lanes; ++lane) {
    scales.word[lane] = block_scale_nearest(std::sqrt(squares.value[lane] * 0.0625f) * (2.92247856f / 6.0f));
  }
}

template <bool guarded, class Round>
NIBBLE_INLINE void choose_scale(const OperandSpec& spec, BlockValues values, const LaneScale& tensor, Round round,
                                LaneWords& scales) {
  LaneWords amax;
  lane_amax(values, block_size, amax);
  const bool square = spec.block == BlockShape::square;
  if (square) {
    const uint32_t largest = largest_of(amax);
    for (uint32_t& word : amax.word) word = largest;
  }
  LaneFloats d;
  for (int lane = 0; lane < lanes; ++lane) {
    const float scaled = float_of_bits(amax.word[lane]) * tensor.multiplier.value[lane];
    d.value[lane] = scaled < float_max ? scaled : float_max;
  }
  switch (spec.scale) {
    case ScaleRule::four_over_six:
      return choose_of_two<Metric::squared, guarded>(values, tensor, d, square, round, scales);
    case ScaleRule::four_over_six_mae:
      return choose_of_two<Metric::absolute, guarded>(values, tensor, d, square, round, scales);
    case ScaleRule::four_over_six_abs_max:
      return choose_of_two<Metric::largest, guarded>(values, tensor, d, square, round, scales);
    case ScaleRule::search: return search_scale(values, tensor, d, square, round, scales);
    case ScaleRule::rms: return rms_scale(values, tensor, scales);
    case ScaleRule::amax:
    case ScaleRule::amax_up: break;
  }
  for (int lane = 0; lane < lanes; ++lane) {
    scales.word[lane] = guarded ? block_scale_guarded(d.value[lane]) : block_scale_nearest(d.value[lane]);
  }
}

// One block of every lane. `encode(position, lane, value)` makes a code.
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
  if constexpr (rounding == Rounding::nearest) {
    const auto round = [](int, int, float magnitude) __attribute__((always_inline)) {
      return e2m1_round_magnitude(magnitude);
    };
    choose_scale<false>(problem.spec, values, tensor, round, scales);
    encode_block(
        values, tensor, scales,
        [](int, int, float value) __attribute__((always_inline)) { return e2m1_nearest(value); }, packed);
    return;
  }
  LaneWords noise[4];
  const int64_t blocks = problem.inner / block_size;
  draw_noise(problem.noise, row * blocks + block, blocks, noise);
  if constexpr (rounding == Rounding::stochastic) {
    const auto round = [&noise](int position, int lane, float magnitude) __attribute__((always_inline)) {
      return e2m1_to_float(e2m1_stochastic_centred(magnitude, noise_byte(noise, position, lane)));
    };
    choose_scale<true>(problem.spec, values, tensor, round, scales);
    encode_block(
        values, tensor, scales,
        [&noise](int position, int lane, float value) __attribute__((always_inline)) {
          return e2m1_stochastic_centred(value, noise_byte(noise, position, lane));
        },
        packed);
  } else {
    const auto round = [](int, int, float magnitude) __attribute__((always_inline)) {
      return magnitude;
    };
    choose_scale<false>(problem.spec, values, tensor, round, scales);
    encode_block(
        values, tensor, scales,
        [&noise](int position, int lane, float value) __attribute__((always_inline)) {
          return e2m1_stochastic_published(value, noise_byte(noise, position, lane));
        },
        packed);
  }
}

// The scales above the blocks; of 128 elements where the recipe says so.
NIBBLE_INLINE uint32_t outer_scale(const CastProblem& problem, const SlabPlace& place, const Slab& slab, float range,
                                   float largest, LaneScale& tensor) {
  if (problem.outer_scales == nullptr) {
    for (int lane = 0; lane < lanes; ++lane) set_lane(tensor, lane, problem.scale, 1.0f / range);
    return 0;
  }
  LaneWords amax;
  lane_amax(slab.value, place.positions, amax);
  for (int lane = 0; lane < lanes; ++lane) {
    set_lane(tensor, lane, tensor_scale_of(float_of_bits(amax.word[lane]), largest), 1.0f / range);
  }
  const int64_t present = lanes_present(problem, place.row);
  for (int64_t lane = 0; lane < present; ++lane) {
    problem.outer_scales[(place.row + lane) * (problem.inner / slab_positions) + place.position / slab_positions] =
        tensor.decode.value[lane];
  }
  return largest_of(amax);
}

struct Targets {
  float range = 6;
  float largest = 2688;
};

template <Rounding rounding>
NIBBLE_INLINE uint32_t cast_slab(const CastProblem& problem, const Targets& targets, const SlabPlace& place,
                                 const Slab& slab) {
  LaneScale tensor;
  const uint32_t amax = outer_scale(problem, place, slab, targets.range, targets.largest, tensor);
  for (int first = 0; first < place.positions; first += block_size) {
    const int64_t block = (place.position + first) / block_size;
    LaneWords scales;
    PackedCodes packed;
    cast_block<rounding>(problem, slab.value + first, tensor, place.row, block, scales, packed);
    store_codes(problem, place.row, place.position + first, packed);
    store_block_scales(problem, place.row, block, problem.inner / block_size, scales);
  }
  return amax;
}

NIBBLE_VECTORIZE uint32_t cast_nearest(const CastProblem& problem, const Targets& targets, const SlabPlace& place,
                                       const Slab& slab) {
  return cast_slab<Rounding::nearest>(problem, targets, place, slab);
}
NIBBLE_VECTORIZE uint32_t cast_stochastic(const CastProblem& problem, const Targets& targets, const SlabPlace& place,
                                          const Slab& slab) {
  return cast_slab<Rounding::stochastic>(problem, targets, place, slab);
}
NIBBLE_VECTORIZE uint32_t cast_published(const CastProblem& problem, const Targets& targets, const SlabPlace& place,
                                         const Slab& slab) {
  return cast_slab<Rounding::stochastic_published>(problem, targets, place, slab);
}

}  // namespace

SlabMaxima cast_nvfp4(const CastProblem& problem, const SlabPlace& place, const Slab& slab) {
  const Targets targets{range_of(problem.spec), largest_of_tensor(problem.spec)};
  switch (problem.spec.round) {
    case Rounding::nearest: return {cast_nearest(problem, targets, place, slab), 0};
    case Rounding::stochastic: return {cast_stochastic(problem, targets, place, slab), 0};
    default: return {cast_published(problem, targets, place, slab), 0};
  }
}

}  // namespace nibble::cpu
