// The quantiser for AVX-512 (F, BW, VL, DQ), with and without VNNI: the same bits as cast_nvfp4.cpp. A tile of 16 rows
// (lanes) by 16 positions is 16 vectors in registers from the source to its codes.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // g++ 12's own intrinsics: bug 105593
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include "quant/cast_kernels.h"

namespace nibble::cpu {
namespace {

#include "quant/cast_nvfp4_vectors.inl"

// Rows of the operand that the lanes of a tile are: first, first + step, ...
struct TilePlace {
  int64_t row;
  int64_t row_step;
  int64_t position;
};

// ---- Codes and scales ----

struct TileCodes {
  Words half[2];
  Words scales;  // in the low byte
};

template <TileRounding rounding_, bool four_over_six_, class Byte>
class Caster {
 public:
  using Made = TileCodes;

  explicit Caster(const TileCast& problem)
      : problem_(problem),
        blocks_(problem.source.inner / block_size),
        first_noise_(philox_prefix(problem.key, problem.counter, 0)),
        second_noise_(philox_prefix(problem.key, problem.counter, 0x80u)),
        nearest_(nearest_table()),
        parts_(stochastic_table(rounding_ == TileRounding::stochastic ? 255 : 0)) {}

  ALWAYS_INLINE Made make(Floats (&v)[16], const TilePlace& place) const {
    if (problem_.signs != nullptr) {
      if (problem_.source.f32) round_to_bf16(v);
      rotate(v, problem_.signs[(place.position - problem_.range.first_position) / block_size]);
      round_to_bf16(v);
    }
    Floats amax = block_amax(v);
    if (problem_.square) amax = floats_of(words(_mm512_reduce_max_epu32(bits_of(amax))));
    Words noise[4];
    if constexpr (rounding_ != TileRounding::nearest) draw(first_noise_, place, noise);
    const Floats multiplier = _mm512_set1_ps(problem_.multiplier);
    const Floats d = _mm512_min_ps(_mm512_mul_ps(amax, multiplier), _mm512_set1_ps(3.402823466e+38f));
    Scale scale = scale_of(d);
    Floats factor = element_factor(scale, problem_.decode);
    if constexpr (four_over_six_) {
      Words noise_four[4];
      if constexpr (rounding_ == TileRounding::stochastic) draw(second_noise_, place, noise_four);
      const Scale four = scale_of(_mm512_mul_ps(d, _mm512_set1_ps(1.5f)));
      const Floats factor_four = element_factor(four, problem_.decode);
      const Floats error = error_of(v, scale, factor, noise);
      const Floats error_four = error_of(v, four, factor_four, noise_four);
      const __mmask16 better = _mm512_cmp_ps_mask(error_four, error, _CMP_LT_OQ);
      scale = {_mm512_mask_mov_epi32(scale.code, better, four.code),
               _mm512_mask_mov_ps(scale.value, better, four.value)};
      factor = _mm512_mask_mov_ps(factor, better, factor_four);
      if constexpr (rounding_ == TileRounding::stochastic) {
        for (int i = 0; i < 4; ++i) noise[i] = _mm512_mask_mov_epi32(noise[i], better, noise_four[i]);
      }
    }
    // Only under a scale that became zero do values exceed what the codes' arithmetic is for.
    const __mmask16 zero = _mm512_cmp_ps_mask(scale.value, _mm512_setzero_ps(), _CMP_EQ_OQ);
    const bool far = _mm512_mask_cmp_ps_mask(zero, amax, _mm512_setzero_ps(), _CMP_NEQ_OQ) != 0;
    Made made;
    made.scales = scale.code;
    if (__builtin_expect(far, 0)) {
      encode<true>(v, factor, noise, made);
    } else {
      encode<false>(v, factor, noise, made);
    }
    return made;
  }

  // Of 16 rows from `row`, of which `present` exist.
  ALWAYS_INLINE void store(const Made& made, int64_t row, int64_t position, int64_t present) const {
    const auto mask = static_cast<__mmask16>((1u << present) - 1u);
    const __m128i scales = _mm512_maskz_cvtepi32_epi8(mask, made.scales);
    if (problem_.tiles) {
      uint8_t* to = problem_.codes + (row * problem_.source.inner + 16 * position) / 2;
      _mm512_storeu_si512(to, _mm512_maskz_mov_epi32(mask, made.half[0]));
      _mm512_storeu_si512(to + 64, _mm512_maskz_mov_epi32(mask, made.half[1]));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(problem_.block_scales + row * blocks_ + position), scales);
      return;
    }
    store_rows(made, scales, row, position, present);
  }

  // Of 32 rows from `row`, the even ones and the odd ones.
  ALWAYS_INLINE void store_pair(const Made& even, const Made& odd, int64_t row, int64_t position) const {
    const Words low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const Words high = _mm512_add_epi32(low, words(8));
    const auto merged = [&](Words index) __attribute__((always_inline)) {
      return Made{{_mm512_permutex2var_epi32(even.half[0], index, odd.half[0]),
                   _mm512_permutex2var_epi32(even.half[1], index, odd.half[1])},
                  _mm512_permutex2var_epi32(even.scales, index, odd.scales)};
    };
    store(merged(low), row, position, 16);
    store(merged(high), row + 16, position, 16);
  }

 private:
  static ALWAYS_INLINE Floats block_amax(const Floats (&v)[16]) {
    Floats amax[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      amax[i] = largest_magnitude(largest_magnitude(v[i], v[i + 4]), largest_magnitude(v[i + 8], v[i + 12]));
    }
    return largest_magnitude(largest_magnitude(amax[0], amax[1]), largest_magnitude(amax[2], amax[3]));
  }

  static ALWAYS_INLINE Scale scale_of(Floats d) {
    return rounding_ == TileRounding::stochastic ? scale_guarded(d) : scale_nearest(d);
  }

  ALWAYS_INLINE void draw(const PhiloxPrefix& prefix, const TilePlace& place, Words (&noise)[4]) const {
    const auto first = static_cast<int>(place.row * blocks_ + place.position / block_size);
    const auto step = static_cast<int>(place.row_step * blocks_);
    const Words even_lanes = _mm512_setr_epi32(0, 0, 2, 0, 4, 0, 6, 0, 8, 0, 10, 0, 12, 0, 14, 0);
    const Words even =
        _mm512_add_epi32(_mm512_mullo_epi32(even_lanes, _mm512_set1_epi32(step)), _mm512_set1_epi32(first));
    draw_noise(prefix, even, _mm512_add_epi32(even, _mm512_set1_epi32(step)), noise);
  }

  // Squared error of every lane's block, in units of the tensor scale, position by position.
  ALWAYS_INLINE Floats error_of(const Floats (&v)[16], const Scale& scale, Floats factor,
                                const Words (&noise)[4]) const {
    Floats sum = _mm512_setzero_ps();
    add_errors<0>(v, scale, factor, noise[0], sum);
    add_errors<1>(v, scale, factor, noise[1], sum);
    add_errors<2>(v, scale, factor, noise[2], sum);
    add_errors<3>(v, scale, factor, noise[3], sum);
    return sum;
  }
  template <int quad>
  ALWAYS_INLINE void add_errors(const Floats (&v)[16], const Scale& scale, Floats factor, Words noise,
                                Floats& sum) const {
    add_error<0>(v[4 * quad], scale, factor, noise, sum);
    add_error<1>(v[4 * quad + 1], scale, factor, noise, sum);
    add_error<2>(v[4 * quad + 2], scale, factor, noise, sum);
    add_error<3>(v[4 * quad + 3], scale, factor, noise, sum);
  }
  template <int j>
  ALWAYS_INLINE void add_error(Floats value, const Scale& scale, Floats factor, Words noise, Floats& sum) const {
    const Floats magnitude = _mm512_abs_ps(value);
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

  template <bool far>
  ALWAYS_INLINE void encode(const Floats (&v)[16], Floats factor, const Words (&noise)[4], Made& made) const {
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      Words codes[8];
#pragma GCC unroll 2
      for (int quad = 0; quad < 2; ++quad) {
        const int i = 8 * half + 4 * quad;
        const Words bytes = rounding_ == TileRounding::nearest ? Words{} : noise[2 * half + quad];
        codes[4 * quad] = code<far, 0>(v[i], factor, bytes);
        codes[4 * quad + 1] = code<far, 1>(v[i + 1], factor, bytes);
        codes[4 * quad + 2] = code<far, 2>(v[i + 2], factor, bytes);
        codes[4 * quad + 3] = code<far, 3>(v[i + 3], factor, bytes);
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

  void store_rows(const Made& made, __m128i scales, int64_t row, int64_t position, int64_t present) const {
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
  struct Made {};

  explicit AmaxFinder(const TileAmax& problem) : problem_(problem) {}

  ALWAYS_INLINE Made make(Floats (&v)[16], const TilePlace& place) {
    if (problem_.want_plain) {
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) include(v[i], plain_[i & 1]);
    }
    if (problem_.source.f32) round_to_bf16(v);
    rotate(v, problem_.signs[(place.position - problem_.range.first_position) / block_size]);
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) include(v[i], rotated_[i & 1]);
    return {};
  }
  ALWAYS_INLINE void store(const Made&, int64_t, int64_t, int64_t) const {}
  ALWAYS_INLINE void store_pair(const Made&, const Made&, int64_t, int64_t) const {}

  uint32_t plain() const {
    return _mm512_reduce_max_epu32(_mm512_max_epu32(plain_[0], plain_[1]));
  }
  // Rounding to BF16 keeps the order, so the largest is rounded alone. NaN stays.
  uint32_t rotated() const {
    const uint32_t largest = _mm512_reduce_max_epu32(_mm512_max_epu32(rotated_[0], rotated_[1]));
    if (largest > 0x7F800000u) return largest;
    return (largest + 0x7FFFu + (largest >> 16 & 1u)) & 0xFFFF0000u;
  }

 private:
  // As integers the bits of magnitudes are ordered, infinity and NaN last.
  static ALWAYS_INLINE void include(Floats value, Words& largest) {
    largest = _mm512_max_epu32(largest, _mm512_and_si512(bits_of(value), words(0x7FFFFFFFu)));
  }

  const TileAmax& problem_;
  Words plain_[2] = {};
  Words rotated_[2] = {};
};

// ---- Sources ----

ALWAYS_INLINE __mmask16 lane_mask(int64_t present) {
  return static_cast<__mmask16>(present >= 16 ? 0xFFFFu : (1u << present) - 1u);
}

template <class Work>
ALWAYS_INLINE void make_and_store(Work& work, Floats (&v)[16], const TilePlace& place, int64_t present) {
  work.store(work.make(v, place), place.row, place.position, present);
}

template <class Work>
void work_on_bf16_rows(const TileSource& source, const TileRange& range, Work& work) {
  for (int64_t row = range.first_row; row < range.last_row; row += 16) {
    const int64_t present = range.last_row - row < 16 ? range.last_row - row : 16;
    const auto* first = static_cast<const uint16_t*>(source.data) + row * source.stride;
    for (int64_t position = range.first_position; position < range.last_position; position += 32) {
      // Words of two neighbouring positions; of the second tile there may be nothing.
      const bool two = range.last_position - position > 16;
      const __mmask32 columns = two ? 0xFFFFFFFFu : 0xFFFFu;
      Words pairs[16];
#pragma GCC unroll 16
      for (int lane = 0; lane < 16; ++lane) {
        const __mmask32 mask = lane < present ? columns : 0;
        pairs[lane] = _mm512_maskz_loadu_epi16(mask, first + (lane < present ? lane : 0) * source.stride + position);
      }
      transpose(pairs);
      for (int tile = 0; tile < (two ? 2 : 1); ++tile) {
        Floats v[16];
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) {
          v[2 * i] = low_half(pairs[8 * tile + i]);
          v[2 * i + 1] = high_half(pairs[8 * tile + i]);
        }
        make_and_store(work, v, {row, 1, position + 16 * tile}, present);
      }
    }
  }
}

template <class Work>
void work_on_f32_rows(const TileSource& source, const TileRange& range, Work& work) {
  for (int64_t row = range.first_row; row < range.last_row; row += 16) {
    const int64_t present = range.last_row - row < 16 ? range.last_row - row : 16;
    const auto* first = static_cast<const float*>(source.data) + row * source.stride;
    for (int64_t position = range.first_position; position < range.last_position; position += 16) {
      Words values[16];
#pragma GCC unroll 16
      for (int lane = 0; lane < 16; ++lane) {
        const __mmask16 mask = lane < present ? 0xFFFFu : 0;
        values[lane] = _mm512_maskz_loadu_epi32(mask, first + (lane < present ? lane : 0) * source.stride + position);
      }
      transpose(values);
      Floats v[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) v[i] = floats_of(values[i]);
      make_and_store(work, v, {row, 1, position}, present);
    }
  }
}

template <class Work>
ALWAYS_INLINE void work_on_bf16_columns(const uint16_t* first, int64_t stride, const TilePlace& place, int64_t present,
                                        Work& work) {
  Floats v[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) {
    const __m256i values = _mm256_maskz_loadu_epi16(lane_mask(present), first + i * stride);
    v[i] = floats_of(_mm512_slli_epi32(_mm512_cvtepu16_epi32(values), 16));
  }
  make_and_store(work, v, place, present);
}

template <class Work>
void work_on_bf16_columns(const TileSource& source, const TileRange& range, bool together, Work& work) {
  for (int64_t position = range.first_position; position < range.last_position; position += 16) {
    const auto* first = static_cast<const uint16_t*>(source.data) + position * source.stride;
    int64_t row = range.first_row;
    // 32 columns at a time, the even ones in the low halves of words and the odd ones in the high halves.
    for (; !together && row + 32 <= range.last_row; row += 32) {
      Floats v[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) v[i] = low_half(_mm512_loadu_si512(first + i * source.stride + row));
      const typename Work::Made even = work.make(v, {row, 2, position});
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) v[i] = high_half(_mm512_loadu_si512(first + i * source.stride + row));
      const typename Work::Made odd = work.make(v, {row + 1, 2, position});
      work.store_pair(even, odd, row, position);
    }
    for (; row < range.last_row; row += 16) {
      const int64_t present = range.last_row - row < 16 ? range.last_row - row : 16;
      work_on_bf16_columns(first + row, source.stride, {row, 1, position}, present, work);
    }
  }
}

template <class Work>
void work_on_f32_columns(const TileSource& source, const TileRange& range, Work& work) {
  for (int64_t position = range.first_position; position < range.last_position; position += 16) {
    for (int64_t row = range.first_row; row < range.last_row; row += 16) {
      const int64_t present = range.last_row - row < 16 ? range.last_row - row : 16;
      const auto* first = static_cast<const float*>(source.data) + position * source.stride + row;
      Floats v[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) v[i] = _mm512_maskz_loadu_ps(lane_mask(present), first + i * source.stride);
      make_and_store(work, v, {row, 1, position}, present);
    }
  }
}

// `together`: the lanes of a tile are consecutive rows.
template <class Work>
void work_on(const TileSource& source, const TileRange& range, bool together, Work& work) {
  if (source.f32) {
    source.transpose ? work_on_f32_columns(source, range, work) : work_on_f32_rows(source, range, work);
  } else {
    source.transpose ? work_on_bf16_columns(source, range, together, work) : work_on_bf16_rows(source, range, work);
  }
}

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
