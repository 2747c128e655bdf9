// The GEMM kernels on codes for AVX2 and FMA. They give the bits of gemm_codes_portable.cpp.
#include <immintrin.h>

#include <utility>

#include "quant/format/tile.h"
#include "quant/gemm/cpu/gemm_codes.h"
#include "quant/recipe/operand_spec.h"

namespace nibble::cpu {
namespace {

#define ALWAYS_INLINE inline __attribute__((always_inline))

constexpr int lanes = 8;
using Vector = float __attribute__((vector_size(32)));
using UnsignedVector = uint32_t __attribute__((vector_size(32)));
using IntVector = int32_t __attribute__((vector_size(32)));
using CodeVector = uint8_t __attribute__((vector_size(32)));
using Halves = uint16_t __attribute__((vector_size(16)));

ALWAYS_INLINE Vector fused(Vector a, Vector b, Vector c) {
  return _mm256_fmadd_ps(a, b, c);
}
ALWAYS_INLINE Vector broadcast(float value) {
  return _mm256_set1_ps(value);
}
ALWAYS_INLINE IntVector broadcast_int(int32_t value) {
  return reinterpret_cast<IntVector>(_mm256_set1_epi32(value));
}
ALWAYS_INLINE UnsignedVector widen(const uint8_t* bytes) {
  return reinterpret_cast<UnsignedVector>(
      _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes))));
}
ALWAYS_INLINE Halves narrow(UnsignedVector values) {
  const auto wide = reinterpret_cast<__m256i>(values);
  return reinterpret_cast<Halves>(_mm_packus_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1)));
}
ALWAYS_INLINE CodeVector lookup(CodeVector table, CodeVector index) {
  return reinterpret_cast<CodeVector>(
      _mm256_shuffle_epi8(reinterpret_cast<__m256i>(table), reinterpret_cast<__m256i>(index)));
}
ALWAYS_INLINE void stream(float* to, Vector value) {
  _mm256_stream_ps(to, value);
}
ALWAYS_INLINE void stream(uint16_t* to, Halves value) {
  _mm_stream_si128(reinterpret_cast<__m128i*>(to), reinterpret_cast<__m128i>(value));
}
ALWAYS_INLINE void fence() {
  _mm_sfence();
}

// Sums of pairs of products fit 16 bits: 4 * 2 * 24 * 12 < 2^15. The bias times the scale is exact, and so is their
// sum, which is the corrected sum times the scale.
struct PairwiseDot {
  static constexpr int constants = 1;
  static constexpr double unpacking_cost = 0.2;
  using Sum = __m256i;

  static ALWAYS_INLINE Sum products(IntVector left, IntVector right) {
    return _mm256_maddubs_epi16(reinterpret_cast<__m256i>(left), reinterpret_cast<__m256i>(right));
  }
  static ALWAYS_INLINE Sum first(IntVector left, IntVector right, const Vector (&/*prepared*/)[1]) {
    return products(left, right);
  }
  static ALWAYS_INLINE Sum next(Sum sum, IntVector left, IntVector right) {
    return _mm256_add_epi16(sum, products(left, right));
  }
  static ALWAYS_INLINE Vector total(Sum sum) {
    return __builtin_convertvector(reinterpret_cast<IntVector>(_mm256_madd_epi16(sum, _mm256_set1_epi16(1))), Vector);
  }
  static ALWAYS_INLINE Vector scaled(Sum sum, Vector scale, const Vector (&prepared)[1]) {
    return fused(total(sum), scale, prepared[0]);
  }
  static ALWAYS_INLINE void prepare(const IntVector (&values)[4], Vector scale, std::byte* to) {
    Sum bias{};
#pragma GCC unroll 4
    for (const IntVector& quad : values) bias = next(bias, broadcast_int(0x0C0C0C0C), quad);
    const Vector addend = -total(bias) * scale;
    __builtin_memcpy(to, &addend, sizeof addend);
  }
};

constexpr int kernel_rows = 8;
constexpr int kernel_vectors = 1;
constexpr int rows_at_once = 1;
constexpr int64_t panel_columns = 32;
constexpr int64_t pass_blocks = 32;

#include "quant/gemm/cpu/gemm_codes.inl"

}  // namespace

const CodeKernels code_kernels_avx2 = make_code_kernels<PairwiseDot>();

}  // namespace nibble::cpu
