// The matrix product for AVX2 and FMA. Same bits as gemm_portable.cpp.
#include <immintrin.h>

#include <utility>

#include "quant/codec.h"
#include "quant/gemm.h"
#include "quant/gemm_kernels.h"

namespace nibble::cpu {
namespace {

constexpr int lanes = 8;
using Vector = float __attribute__((vector_size(32)));
using UnsignedVector = uint32_t __attribute__((vector_size(32)));
using IntVector = int32_t __attribute__((vector_size(32)));
using Bytes = uint8_t __attribute__((vector_size(16)));

constexpr int plain_rows = 6;
constexpr int plain_vectors = 2;
constexpr int code_rows = 6;
constexpr int code_vectors = 1;
constexpr int64_t block_rows = 288;
constexpr int64_t block_columns = 256;
constexpr int64_t row_step = 6;
constexpr int64_t column_step = 16;

inline __attribute__((always_inline)) Vector fused(Vector a, Vector b, Vector c) {
  return _mm256_fmadd_ps(a, b, c);
}
inline __attribute__((always_inline)) Vector broadcast(float value) {
  return _mm256_set1_ps(value);
}
inline __attribute__((always_inline)) IntVector broadcast_int(int32_t value) {
  return reinterpret_cast<IntVector>(_mm256_set1_epi32(value));
}
inline __attribute__((always_inline)) Bytes lookup(Bytes table, Bytes index) {
  return reinterpret_cast<Bytes>(_mm_shuffle_epi8(reinterpret_cast<__m128i>(table), reinterpret_cast<__m128i>(index)));
}

// Pairs of products fit 16 bits: 4 * 2 * 24 * 12 < 2^15.
struct PairwiseDot {
  static inline __attribute__((always_inline)) IntVector dot(const IntVector (&a)[4], const std::byte* b,
                                                             IntVector start) {
    constexpr int64_t quad_stride = code_vectors * lanes * 4;  // bytes
    __m256i products[4];
#pragma GCC unroll 4
    for (int quad = 0; quad < 4; ++quad) {
      const __m256i right = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b + quad * quad_stride));
      products[quad] = _mm256_maddubs_epi16(reinterpret_cast<__m256i>(a[quad]), right);
    }
    const __m256i sum =
        _mm256_add_epi16(_mm256_add_epi16(products[0], products[1]), _mm256_add_epi16(products[2], products[3]));
    return reinterpret_cast<IntVector>(_mm256_madd_epi16(sum, _mm256_set1_epi16(1))) + start;
  }
};

#include "quant/gemm_kernels.inl"

}  // namespace

const GemmKernels gemm_avx2 = make_kernels<PairwiseDot>();

}  // namespace nibble::cpu
