// MS-EDEN (Quartet II, arXiv:2601.22813): the elements are rounded to nearest, then the block scale times S = <v,
// v>/<v, e>, which makes the projection of the rounded block on the true one exact, is rounded stochastically to E4M3.
#include "quant/format/block_rules.h"
#include "quant/quantize/cpu/cast_blocks.h"

namespace nibble::cpu {
namespace {

constexpr int block_size = 16;
constexpr int scale_blocks = row_block_positions / block_size;

// Rounds a block of every lane, its values times `factor`, to nearest codes, and sums the two products that S is made
// of.
NIBBLE_INLINE void encode_nearest(const float (*values)[lanes], const LaneFloats& factor, PackedCodes& packed,
                                  LaneFloats& squares, LaneFloats& products) {
  for (int lane = 0; lane < lanes; ++lane) squares.value[lane] = products.value[lane] = 0;
  const auto code = [&](int position, int lane) __attribute__((always_inline)) {
    const float value = values[position][lane] * factor.value[lane];
    squares.value[lane] += value * value;
    products.value[lane] += absolute(value) * e2m1_round_magnitude(absolute(value));
    return e2m1_nearest(value);
  };
  pack_codes(code, packed);
}

// ---- The tensor scale first: Algorithm 1 ----

struct Corrections {
  LaneFloats scale[scale_blocks];  // before the correction
  LaneFloats squares[scale_blocks], products[scale_blocks];
};

NIBBLE_INLINE void encode_row_block(const CastProblem& problem, const RowBlockBounds& bounds, const RowBlock& row_block,
                                    float range, Corrections& corrections) {
  const float multiplier = problem.scale.encode * (1.0f / range);
  for (int first = 0, b = 0; first < bounds.positions; first += block_size, ++b) {
    LaneWords amax;
    LaneFloats factor;
    PackedCodes packed;
    lane_amax(row_block.value + first, block_size, amax);
    for (int lane = 0; lane < lanes; ++lane) {
      const uint32_t scale = block_scale_nearest(float_of_bits(amax.word[lane]) * multiplier);
      corrections.scale[b].value[lane] = e4m3_to_float(scale);
      factor.value[lane] = scale == 0 ? 0.0f : element_encode_scale(scale, problem.scale.decode);
    }
    encode_nearest(row_block.value + first, factor, packed, corrections.squares[b], corrections.products[b]);
    store_codes(problem, bounds.row, bounds.position + first, packed);
  }
}

// Gives the blocks of a row block one correction, in which each block counts by its squared scale, or all count alike.
NIBBLE_INLINE void share_correction(int blocks, bool weighted, Corrections& corrections) {
  LaneFloats squares{};
  LaneFloats products{};
  for (int b = 0; b < blocks; ++b) {
    for (int lane = 0; lane < lanes; ++lane) {
      const float scale = corrections.scale[b].value[lane];
      const float weight = weighted ? scale * scale : 1.0f;
      squares.value[lane] += weight * corrections.squares[b].value[lane];
      products.value[lane] += weight * corrections.products[b].value[lane];
    }
  }
  for (int b = 0; b < blocks; ++b) {
    corrections.squares[b] = squares;
    corrections.products[b] = products;
  }
}

NIBBLE_VECTORIZE void cast_scale_first(const CastProblem& problem, const RowBlockBounds& bounds,
                                       const RowBlock& row_block, float range) {
  Corrections corrections;
  encode_row_block(problem, bounds, row_block, range, corrections);
  const int scale_block_count = bounds.positions / block_size;
  const EdenCorrection kind = problem.spec.correction;
  if (kind != EdenCorrection::per_16) {
    share_correction(scale_block_count, kind == EdenCorrection::per_128, corrections);
  }
  const int64_t blocks = problem.inner / block_size;
  for (int b = 0; b < scale_block_count; ++b) {
    const int64_t block = bounds.position / block_size + b;
    LaneWords noise[4];
    LaneWords scales;
    draw_noise(problem.noise, bounds.row * blocks + block, blocks, noise);
    for (int lane = 0; lane < lanes; ++lane) {
      const float correction = eden_correction(corrections.squares[b].value[lane], corrections.products[b].value[lane]);
      scales.word[lane] = e4m3_stochastic(correction * corrections.scale[b].value[lane], noise[0].word[lane] >> 8);
    }
    store_block_scales(problem, bounds.row, block, blocks, scales);
  }
}

// ---- The tensor scale last: post hoc range alignment ----

struct PostHoc {
  float reciprocal_range = 1.0f / 6.0f;
  bool published = false;
};

NIBBLE_INLINE RowBlockMaxima cast_row_block_post_hoc(const CastProblem& problem, const RowBlockBounds& bounds,
                                                     const RowBlock& row_block, const PostHoc& arithmetic) {
  const int64_t blocks = problem.inner / block_size;
  LaneWords largest_amax{};
  LaneWords largest_corrected{};
  for (int first = 0; first < bounds.positions; first += block_size) {
    const int64_t block = (bounds.position + first) / block_size;
    LaneWords amax;
    LaneFloats pseudo, factor, squares, products, corrected;
    PackedCodes packed;
    lane_amax(row_block.value + first, block_size, amax);
    for (int lane = 0; lane < lanes; ++lane) {
      pseudo.value[lane] = pseudo_scale(amax.word[lane], arithmetic.reciprocal_range, arithmetic.published);
      factor.value[lane] = pseudo_encode_scale(pseudo.value[lane]);
    }
    encode_nearest(row_block.value + first, factor, packed, squares, products);
    for (int lane = 0; lane < lanes; ++lane) {
      const float correction = eden_correction(squares.value[lane], products.value[lane]);
      corrected.value[lane] = corrected_scale(pseudo.value[lane], correction, arithmetic.published);
      const uint32_t bits = bits_of(corrected.value[lane]) & 0x7FFFFFFFu;
      largest_amax.word[lane] = amax.word[lane] > largest_amax.word[lane] ? amax.word[lane] : largest_amax.word[lane];
      largest_corrected.word[lane] = bits > largest_corrected.word[lane] ? bits : largest_corrected.word[lane];
    }
    store_codes(problem, bounds.row, bounds.position + first, packed);
    memcpy(problem.corrected + bounds.row * blocks + block * lanes, corrected.value, sizeof corrected.value);
  }
  return {largest_of(largest_amax), largest_of(largest_corrected)};
}
NIBBLE_VECTORIZE RowBlockMaxima cast_post_hoc(const CastProblem& problem, const RowBlockBounds& bounds,
                                              const RowBlock& row_block, const PostHoc& arithmetic) {
  return cast_row_block_post_hoc(problem, bounds, row_block, arithmetic);
}

template <class Round>
NIBBLE_INLINE void round_tiles(const CastProblem& problem, int64_t begin, int64_t end, Round round) {
  const int64_t blocks = problem.inner / block_size;
  for (int64_t tile = begin; tile < end; ++tile) {
    const int64_t row = tile / blocks * lanes;
    const int64_t block = tile % blocks;
    const float* corrected = problem.corrected + tile * lanes;
    LaneWords noise[4];
    LaneWords scales;
    draw_noise(problem.noise, row * blocks + block, blocks, noise);
    for (int lane = 0; lane < lanes; ++lane) {
      scales.word[lane] = round(corrected[lane] * problem.scale.encode, noise[0].word[lane]);
    }
    store_block_scales(problem, row, block, blocks, scales);
  }
}
NIBBLE_VECTORIZE void round_scales(const CastProblem& problem, int64_t begin, int64_t end) {
  round_tiles(
      problem, begin, end,
      [](float value, uint32_t drawn) __attribute__((always_inline)) { return e4m3_stochastic(value, drawn >> 8); });
}
NIBBLE_VECTORIZE void round_scales_published(const CastProblem& problem, int64_t begin, int64_t end) {
  round_tiles(
      problem, begin, end, [](float value, uint32_t drawn) __attribute__((always_inline)) {
        return e4m3_stochastic_published(value, drawn);
      });
}

}  // namespace

RowBlockMaxima cast_ms_eden(const CastProblem& problem, const RowBlockBounds& bounds, const RowBlock& row_block) {
  const float range = range_of(problem.spec);
  if (corrects_post_hoc(problem.spec)) {
    const PostHoc arithmetic{1.0f / range, problem.spec.correction == EdenCorrection::post_hoc_published};
    return cast_post_hoc(problem, bounds, row_block, arithmetic);
  }
  cast_scale_first(problem, bounds, row_block, range);
  return {};
}

void round_corrected_scales(const CastProblem& problem, int64_t begin, int64_t end) {
  const bool published = problem.spec.correction == EdenCorrection::post_hoc_published;
  (published ? round_scales_published : round_scales)(problem, begin, end);
}

}  // namespace nibble::cpu
