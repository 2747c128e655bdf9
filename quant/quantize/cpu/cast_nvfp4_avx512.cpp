// The quantiser for AVX-512 (F, BW, VL, DQ), with and without VNNI, with the bits of cast_nvfp4.cpp. A tile of 16 rows
// (lanes) by 16 positions is 16 vectors in registers from the source to its codes.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // g++ 12's own intrinsics: bug 105593
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include "quant/quantize/cpu/cast_kernels.h"

namespace nibble::cpu {
namespace {

#include "quant/quantize/cpu/cast_nvfp4_vectors.inl"

#include "quant/quantize/cpu/cast_nvfp4_tiles.inl"

// ---- Codes and scales ----

struct TileCodes {
  Words half[2];
  Words scales;  // scales in the low bytes
};

template <TileRounding rounding_, bool four_over_six_, class Byte>
class Caster {
 public:
  explicit Caster(const TileCast& problem)
      : problem_(problem),
        blocks_(problem.source.inner / block_size),
        first_noise_(philox_prefix(problem.key, problem.counter, 0)),
        second_noise_(philox_prefix(problem.key, problem.counter, 0x80u)),
        nearest_(nearest_table()),
        parts_(stochastic_table(rounding_ == TileRounding::stochastic ? 255 : 0)) {}

  // Two tiles and their scales, between prepare() and finish().
  template <class Tiles>
  struct Stage {
    Tiles tiles;
    Kept rotated;
    TileBounds bounds[2];
    Floats amax[2];
    Scale scale[2];
    Floats factor[2];
  };

  template <class Tiles>
  ALWAYS_INLINE void prepare(Stage<Tiles>& stage) const {
    if (problem_.signs == nullptr) {
      stage.tiles.set_amax(stage.amax);
    } else {
      const Rotation rotation{problem_.signs, problem_.range.first_position, problem_.source.f32};
#pragma GCC unroll 2
      for (int tile = 0; tile < 2; ++tile) {
        Floats v[16];
        rotation.load(stage.tiles, stage.bounds[tile], tile, v);
        round_to_bf16(v);
#pragma GCC unroll 16
        for (int i = 0; i < 16; ++i) stage.rotated.values[tile][i] = v[i];
        stage.amax[tile] = largest_magnitude_of(v);
      }
    }
#pragma GCC unroll 2
    for (int tile = 0; tile < 2; ++tile) {
      Floats& amax = stage.amax[tile];
      if (problem_.square) amax = floats_of(words(_mm512_reduce_max_epu32(bits_of(amax))));
      stage.scale[tile] = scale_of(scaled_amax(amax));
      stage.factor[tile] = element_factor(stage.scale[tile], problem_.decode);
    }
  }

  // finish() is a call of its own so that it has all registers for itself.
  template <class Tiles>
  __attribute__((noinline)) void finish(const Stage<Tiles>& stage) const {
    TileCodes made[2];
    if (problem_.signs == nullptr) {
      make(stage.tiles, stage, made);
    } else {
      make(stage.rotated, stage, made);
    }
    const TileBounds(&bounds)[2] = stage.bounds;
    if (bounds[0].row_step == 2) return store_interleaved(made, bounds[0]);
    store(made[0], bounds[0].row, bounds[0].position, bounds[0].present);
    if (bounds[1].present > 0) store(made[1], bounds[1].row, bounds[1].position, bounds[1].present);
  }

 private:
  ALWAYS_INLINE Floats scaled_amax(Floats amax) const {
    return _mm512_min_ps(_mm512_mul_ps(amax, _mm512_set1_ps(problem_.multiplier)), _mm512_set1_ps(3.402823466e+38f));
  }

  template <class Tiles, class Prepared>
  ALWAYS_INLINE void make(const Tiles& tiles, const Prepared& stage, TileCodes (&made)[2]) const {
    Words noises[2][4] = {};
    if constexpr (rounding_ != TileRounding::nearest) draw(first_noise_, stage.bounds, noises);
#pragma GCC unroll 2
    for (int tile = 0; tile < 2; ++tile) {
      Words(&noise)[4] = noises[tile];
      const Floats amax = stage.amax[tile];
      Scale scale = stage.scale[tile];
      Floats factor = stage.factor[tile];
      if constexpr (four_over_six_) choose(tiles, tile, stage.bounds[tile], amax, scale, factor, noise);
      made[tile].scales = scale.code;
      // Values exceed the range of the codes' arithmetic only under a scale that became zero.
      const __mmask16 zero = _mm512_cmp_ps_mask(scale.value, _mm512_setzero_ps(), _CMP_EQ_OQ);
      if (__builtin_expect(_mm512_mask_cmp_ps_mask(zero, amax, _mm512_setzero_ps(), _CMP_NEQ_OQ) != 0, 0)) {
        encode<true>(tiles, tile, factor, noise, made[tile]);
      } else {
        encode<false>(tiles, tile, factor, noise, made[tile]);
      }
    }
  }

  static ALWAYS_INLINE Scale scale_of(Floats d) {
    return rounding_ == TileRounding::stochastic ? scale_guarded(d) : scale_nearest(d);
  }

  ALWAYS_INLINE void draw(const PhiloxPrefix& prefix, const TileBounds (&bounds)[2], Words (&noises)[2][4]) const {
    Words indices[4];
#pragma GCC unroll 2
    for (int tile = 0; tile < 2; ++tile) set_indices(bounds[tile], indices + 2 * tile);
    draw_noise<2>(prefix, indices, noises);
  }
  // Sets the indices of the blocks of even lanes and of odd lanes.
  ALWAYS_INLINE void set_indices(const TileBounds& bounds, Words* indices) const {
    const auto first = static_cast<int>(bounds.row * blocks_ + bounds.position / block_size);
    const auto step = static_cast<int>(bounds.row_step * blocks_);
    const Words even_lanes = _mm512_setr_epi32(0, 0, 2, 0, 4, 0, 6, 0, 8, 0, 10, 0, 12, 0, 14, 0);
    indices[0] = _mm512_add_epi32(_mm512_mullo_epi32(even_lanes, _mm512_set1_epi32(step)), _mm512_set1_epi32(first));
    indices[1] = _mm512_add_epi32(indices[0], _mm512_set1_epi32(step));
  }

  // Four over six takes the second candidate, with noise of its own, where its squared error is lower.
  template <class Tiles>
  ALWAYS_INLINE void choose(const Tiles& tiles, int tile, const TileBounds& bounds, Floats amax, Scale& scale,
                            Floats& factor, Words (&noise)[4]) const {
    Words noises_four[1][4] = {};
    Words(&noise_four)[4] = noises_four[0];
    if constexpr (rounding_ == TileRounding::stochastic) {
      Words indices[2];
      set_indices(bounds, indices);
      draw_noise<1>(second_noise_, indices, noises_four);
    }
    const Floats d =
        _mm512_min_ps(_mm512_mul_ps(amax, _mm512_set1_ps(problem_.multiplier)), _mm512_set1_ps(3.402823466e+38f));
    const Scale four = scale_of(_mm512_mul_ps(d, _mm512_set1_ps(1.5f)));
    const Floats factor_four = element_factor(four, problem_.decode);
    Floats error = _mm512_setzero_ps();
    Floats error_four = error;
#pragma GCC unroll 4
    for (int quad = 0; quad < 4; ++quad) {
      const int i = 4 * quad;
      const auto add = [&](auto j, Floats value) __attribute__((always_inline)) {
        const Floats magnitude = _mm512_abs_ps(value);
        add_error<j.value>(magnitude, scale, factor, noise[quad], error);
        add_error<j.value>(magnitude, four, factor_four, noise_four[quad], error_four);
      };
      add(Index<0>{}, tiles.value(tile, i));
      add(Index<1>{}, tiles.value(tile, i + 1));
      add(Index<2>{}, tiles.value(tile, i + 2));
      add(Index<3>{}, tiles.value(tile, i + 3));
    }
    const __mmask16 better = _mm512_cmp_ps_mask(error_four, error, _CMP_LT_OQ);
    scale = {_mm512_mask_mov_epi32(scale.code, better, four.code), _mm512_mask_mov_ps(scale.value, better, four.value)};
    factor = _mm512_mask_mov_ps(factor, better, factor_four);
    if constexpr (rounding_ == TileRounding::stochastic) {
      for (int i = 0; i < 4; ++i) noise[i] = _mm512_mask_mov_epi32(noise[i], better, noise_four[i]);
    }
  }

  // Adds the squared error of position j, in units of the tensor scale; positions are added in order.
  template <int j>
  ALWAYS_INLINE void add_error(Floats magnitude, const Scale& scale, Floats factor, Words noise, Floats& sum) const {
    const Floats bounded = _mm512_min_ps(_mm512_mul_ps(magnitude, factor), _mm512_set1_ps(6.0f));
    Floats rounded;
    if constexpr (rounding_ == TileRounding::stochastic) {
      rounded = stochastic_magnitude<Byte, j>(parts_, bounded, noise);
    } else {
      rounded = nearest_magnitude(nearest_, bounded);
    }
    const Floats difference =
        _mm512_sub_ps(_mm512_mul_ps(magnitude, _mm512_set1_ps(problem_.encode)), _mm512_mul_ps(rounded, scale.value));
    sum = _mm512_add_ps(sum, _mm512_mul_ps(difference, difference));
  }

  template <bool far, class Tiles>
  ALWAYS_INLINE void encode(const Tiles& tiles, int tile, Floats factor, const Words (&noise)[4],
                            TileCodes& made) const {
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      Words codes[8];
#pragma GCC unroll 2
      for (int quad = 0; quad < 2; ++quad) {
        const int i = 8 * half + 4 * quad;
        const Words bytes = noise[2 * half + quad];
        codes[4 * quad] = code<far, 0>(tiles.value(tile, i), factor, bytes);
        codes[4 * quad + 1] = code<far, 1>(tiles.value(tile, i + 1), factor, bytes);
        codes[4 * quad + 2] = code<far, 2>(tiles.value(tile, i + 2), factor, bytes);
        codes[4 * quad + 3] = code<far, 3>(tiles.value(tile, i + 3), factor, bytes);
      }
      made.half[half] = pack < rounding_ == TileRounding::nearest ? 0 : 8 > (codes);
    }
  }
  template <bool far, int j>
  ALWAYS_INLINE Words code(Floats value, Floats factor, Words noise) const {
    Floats scaled = _mm512_mul_ps(value, factor);
    if constexpr (far) scaled = clamped(scaled, _mm512_set1_ps(6.0f));
    if constexpr (rounding_ == TileRounding::nearest) return nearest_code(nearest_, scaled);
    if constexpr (rounding_ == TileRounding::stochastic) return stochastic_code<Byte, j>(parts_, scaled, noise);
    return published_code<Byte, j>(parts_, scaled, noise);
  }

  // Stores two tiles that hold the even and the odd ones of 32 rows.
  ALWAYS_INLINE void store_interleaved(const TileCodes (&made)[2], const TileBounds& bounds) const {
    const Words low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const Words high = _mm512_add_epi32(low, words(8));
    const auto merged = [&](Words index) __attribute__((always_inline)) {
      return TileCodes{{_mm512_permutex2var_epi32(made[0].half[0], index, made[1].half[0]),
                        _mm512_permutex2var_epi32(made[0].half[1], index, made[1].half[1])},
                       _mm512_permutex2var_epi32(made[0].scales, index, made[1].scales)};
    };
    store(merged(low), bounds.row, bounds.position, 16);
    store(merged(high), bounds.row + 16, bounds.position, 16);
  }

  // Stores a tile of 16 rows from `row`, of which `present` exist.
  ALWAYS_INLINE void store(const TileCodes& made, int64_t row, int64_t position, int64_t present) const {
    const __mmask16 mask = lane_mask(present);
    const __m128i scales = _mm512_maskz_cvtepi32_epi8(mask, made.scales);
    if (!problem_.tiles) return store_rows(made, scales, row, position, present);
    uint8_t* to = problem_.codes + (row * problem_.source.inner + 16 * position) / 2;
    _mm512_storeu_si512(to, _mm512_maskz_mov_epi32(mask, made.half[0]));
    _mm512_storeu_si512(to + 64, _mm512_maskz_mov_epi32(mask, made.half[1]));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(problem_.block_scales + row * blocks_ + position), scales);
  }
  __attribute__((noinline)) void store_rows(const TileCodes& made, __m128i scales, int64_t row, int64_t position,
                                            int64_t present) const {
    alignas(64) uint32_t codes[2][16];
    alignas(16) uint8_t scale[16];
    _mm512_store_si512(codes[0], in_row_order(made.half[0]));
    _mm512_store_si512(codes[1], in_row_order(made.half[1]));
    _mm_store_si128(reinterpret_cast<__m128i*>(scale), scales);
    for (int64_t lane = 0; lane < present; ++lane) {
      uint8_t* to = problem_.codes + ((row + lane) * problem_.source.inner + position) / 2;
      __builtin_memcpy(to, &codes[0][lane], 4);
      __builtin_memcpy(to + 4, &codes[1][lane], 4);
      problem_.block_scales[(row + lane) * blocks_ + position / block_size] = scale[lane];
    }
  }

  const TileCast& problem_;
  int64_t blocks_;
  PhiloxPrefix first_noise_, second_noise_;
  NearestParts nearest_;
  Floats parts_;
};

// ---- The largest magnitude ----

class AmaxFinder {
 public:
  explicit AmaxFinder(const TileAmax& problem)
      : rotation_{problem.signs, problem.range.first_position, problem.source.f32}, want_plain_(problem.want_plain) {}

  template <class Tiles>
  struct Stage {
    Tiles tiles;
    TileBounds bounds[2];
  };

  template <class Tiles>
  ALWAYS_INLINE void prepare(Stage<Tiles>& stage) {
    if (want_plain_) plain_ = _mm512_max_epu32(plain_, stage.tiles.largest());
#pragma GCC unroll 2
    for (int tile = 0; tile < 2; ++tile) {
      Floats v[16];
      rotation_.load(stage.tiles, stage.bounds[tile], tile, v);
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) include_magnitude(v[i], rotated_[i & 1]);
    }
  }
  template <class Tiles>
  ALWAYS_INLINE void finish(const Stage<Tiles>&) const {}

  uint32_t plain() const {
    return _mm512_reduce_max_epu32(plain_);
  }
  // Rounding to BF16 keeps the order, so only the largest magnitude is rounded. NaN stays.
  uint32_t rotated() const {
    const uint32_t largest = _mm512_reduce_max_epu32(_mm512_max_epu32(rotated_[0], rotated_[1]));
    if (largest > 0x7F800000u) return largest;
    return (largest + 0x7FFFu + (largest >> 16 & 1u)) & 0xFFFF0000u;
  }

 private:
  Rotation rotation_;
  bool want_plain_;
  Words plain_ = {};
  Words rotated_[2] = {};
};

template <TileRounding rounding, bool four_over_six, class Byte>
void cast_by(const TileCast& problem) {
  Caster<rounding, four_over_six, Byte> caster(problem);
  work_on(problem.source, problem.range, problem.square, caster);
}

template <class Byte>
void cast(const TileCast& problem) {
  const bool chooses = problem.four_over_six;
  switch (problem.rounding) {
    case TileRounding::nearest:
      return chooses ? cast_by<TileRounding::nearest, true, Byte>(problem)
                     : cast_by<TileRounding::nearest, false, Byte>(problem);
    case TileRounding::stochastic:
      return chooses ? cast_by<TileRounding::stochastic, true, Byte>(problem)
                     : cast_by<TileRounding::stochastic, false, Byte>(problem);
    case TileRounding::stochastic_published: return cast_by<TileRounding::stochastic_published, false, Byte>(problem);
  }
}

void rotated_amax(TileAmax& problem) {
  AmaxFinder finder(problem);
  work_on(problem.source, problem.range, false, finder);
  problem.rotated = finder.rotated();
  problem.plain = finder.plain();
}

}  // namespace

const CastKernels cast_kernels_avx512 = {cast<ByteByShift>, rotated_amax};
const CastKernels cast_kernels_avx512_vnni = {cast<ByteByDot>, rotated_amax};

}  // namespace nibble::cpu
