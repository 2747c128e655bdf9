// Casts to formats whose block scale is a power of two (MXFP4, MXFP8), or that have no block scale (FP8 with a scale a
// tensor).
#include "quant/format/block_rules.h"
#include "quant/quantize/cpu/cast_blocks.h"

namespace nibble::cpu {
namespace {

constexpr int mx_block = 32;

NIBBLE_INLINE void rms_scales(const float (*values)[lanes], const LaneWords& amax, LaneWords& scales) {
  LaneFloats unit;
  LaneFloats squares{};
  for (int lane = 0; lane < lanes; ++lane) {
    scales.word[lane] = e8m0_down(float_of_bits(amax.word[lane]));
    unit.value[lane] = e8m0_to_float(254u - scales.word[lane]);
  }
  for (int position = 0; position < mx_block; ++position) {
    for (int lane = 0; lane < lanes; ++lane) {
      const float value = values[position][lane] * unit.value[lane];
      squares.value[lane] += value * value;
    }
  }
  for (int lane = 0; lane < lanes; ++lane) {
    scales.word[lane] = mx_scale_rms(scales.word[lane], squares.value[lane]);
  }
}

NIBBLE_INLINE void mx_scales(const OperandSpec& spec, const float (*values)[lanes], const LaneWords& amax,
                             LaneWords& scales) {
  const FormatTraits traits = traits_of(spec.format);
  if (spec.scale == ScaleRule::amax) {
    const uint32_t reach = exponent_of_largest(traits.element);
    for (int lane = 0; lane < lanes; ++lane) scales.word[lane] = mx_scale_amax(amax.word[lane], reach);
  } else if (spec.scale == ScaleRule::amax_up) {
    const float reciprocal = 1.0f / traits.largest;
    for (int lane = 0; lane < lanes; ++lane) scales.word[lane] = mx_scale_amax_up(amax.word[lane], reciprocal);
  } else {
    rms_scales(values, amax, scales);
  }
}

template <class Encode>
NIBBLE_INLINE void store_bytes(const CastProblem& problem, const RowBlockBounds& bounds, int first, int positions,
                               Encode encode) {
  alignas(64) uint8_t bytes[lanes][lanes];
  const int64_t present = lanes_present(problem, bounds.row);
  for (int position = 0; position < lanes; ++position) {
    for (int lane = 0; lane < lanes; ++lane) {
      bytes[lane][position] = static_cast<uint8_t>(encode(first + position, lane));
    }
  }
  const auto count = static_cast<size_t>(positions < lanes ? positions : lanes);
  for (int64_t lane = 0; lane < present; ++lane) {
    memcpy(problem.codes + (bounds.row + lane) * problem.inner + bounds.position + first, bytes[lane], count);
  }
}

NIBBLE_INLINE void cast_mx_block(const CastProblem& problem, const RowBlockBounds& bounds, const RowBlock& row_block,
                                 int first, LaneWords& amax) {
  const ElementCode element = traits_of(problem.spec.format).element;
  const bool stochastic = problem.spec.round == Rounding::stochastic;
  lane_amax(row_block.value + first, mx_block, amax);
  LaneWords scales;
  LaneFloats factor;
  mx_scales(problem.spec, row_block.value + first, amax, scales);
  for (int lane = 0; lane < lanes; ++lane) {
    factor.value[lane] = mx_encode_scale(scales.word[lane], stochastic);
  }
  const int64_t blocks = problem.inner / mx_block;
  const int64_t block = (bounds.position + first) / mx_block;
  store_block_scales(problem, bounds.row, block, blocks, scales);
  for (int half = 0; half < mx_block; half += lanes) {
    const int begin = first + half;
    const auto value = [&](int position, int lane) __attribute__((always_inline)) {
      return row_block.value[position][lane] * factor.value[lane];
    };
    if (element == ElementCode::e4m3) {
      store_bytes(
          problem, bounds, begin, lanes, [&](int position, int lane) __attribute__((always_inline)) {
            return e4m3_nearest(value(position, lane));
          });
    } else if (element == ElementCode::e5m2) {
      store_bytes(
          problem, bounds, begin, lanes, [&](int position, int lane) __attribute__((always_inline)) {
            return e5m2_nearest(value(position, lane));
          });
    } else {
      PackedCodes packed;
      if (stochastic) {
        LaneWords noise[4];  // one Philox block for 16 elements
        draw_noise(problem.noise, (bounds.row * blocks + block) * 2 + half / lanes, blocks * 2, noise);
        pack_codes(
            [&](int position, int lane) __attribute__((always_inline)) {
              return e2m1_stochastic_centred(value(begin + position, lane), noise_byte(noise, position, lane));
            },
            packed);
      } else {
        pack_codes(
            [&](int position, int lane)
                __attribute__((always_inline)) { return e2m1_nearest(value(begin + position, lane)); },
            packed);
      }
      store_codes(problem, bounds.row, bounds.position + begin, packed);
    }
  }
}

NIBBLE_VECTORIZE uint32_t cast_mx_row_block(const CastProblem& problem, const RowBlockBounds& bounds,
                                            const RowBlock& row_block) {
  LaneWords largest{};
  for (int first = 0; first < bounds.positions; first += mx_block) {
    LaneWords amax;
    cast_mx_block(problem, bounds, row_block, first, amax);
    for (int lane = 0; lane < lanes; ++lane) {
      largest.word[lane] = amax.word[lane] > largest.word[lane] ? amax.word[lane] : largest.word[lane];
    }
  }
  return largest_of(largest);
}

NIBBLE_VECTORIZE void cast_fp8_row_block(const CastProblem& problem, const RowBlockBounds& bounds,
                                         const RowBlock& row_block) {
  LaneFloats encode;
  for (int lane = 0; lane < lanes; ++lane) encode.value[lane] = scale_of_lane(problem, lane).encode;
  const bool wide = traits_of(problem.spec.format).element == ElementCode::e5m2;
  for (int first = 0; first < bounds.positions; first += lanes) {
    if (wide) {
      store_bytes(
          problem, bounds, first, bounds.positions - first, [&](int position, int lane) __attribute__((always_inline)) {
            return e5m2_nearest(row_block.value[position][lane] * encode.value[lane]);
          });
    } else {
      store_bytes(
          problem, bounds, first, bounds.positions - first, [&](int position, int lane) __attribute__((always_inline)) {
            return e4m3_nearest(row_block.value[position][lane] * encode.value[lane]);
          });
    }
  }
}

}  // namespace

RowBlockMaxima cast_mx(const CastProblem& problem, const RowBlockBounds& bounds, const RowBlock& row_block) {
  return {cast_mx_row_block(problem, bounds, row_block), 0};
}

RowBlockMaxima cast_fp8(const CastProblem& problem, const RowBlockBounds& bounds, const RowBlock& row_block) {
  cast_fp8_row_block(problem, bounds, row_block);
  return {amax_of_row_block(row_block, bounds.positions), 0};
}

}  // namespace nibble::cpu
