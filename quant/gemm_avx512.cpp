// The matrix product for AVX-512 (F, BW, VL, DQ), with and without VNNI. Same bits as gemm_portable.cpp.
#include <immintrin.h>

#include <utility>

#include "quant/codec.h"
#include "quant/gemm.h"
#include "quant/gemm_kernels.h"

namespace nibble::cpu {
namespace {

constexpr int lanes = 16;
using Vector = float __attribute__((vector_size(64)));
using UnsignedVector = uint32_t __attribute__((vector_size(64)));
using IntVector = int32_t __attribute__((vector_size(64)));
using Bytes = uint8_t __attribute__((vector_size(16)));

constexpr int plain_rows = 14;
constexpr int plain_vectors = 2;
constexpr int code_rows = 8;
constexpr int code_vectors = 2;
constexpr int64_t block_rows = 448;
constexpr int64_t block_columns = 256;
constexpr int64_t row_step = 56;
constexpr int64_t column_step = 32;

inline __attribute__((always_inline)) Vector fused(Vector a, Vector b, Vector c) {
  return _mm512_fmadd_ps(a, b, c);
}
inline __attribute__((always_inline)) Vector broadcast(float value) {
  return _mm512_set1_ps(value);
}
inline __attribute__((always_inline)) IntVector broadcast_int(int32_t value) {
  return reinterpret_cast<IntVector>(_mm512_set1_epi32(value));
}
inline __attribute__((always_inline)) Bytes lookup(Bytes table, Bytes index) {
  return reinterpret_cast<Bytes>(_mm_shuffle_epi8(reinterpret_cast<__m128i>(table), reinterpret_cast<__m128i>(index)));
}

constexpr int64_t quad_stride = code_vectors * lanes * 4;  // bytes

// Pairs of products fit 16 bits: 4 * 2 * 24 * 12 < 2^15.
struct PairwiseDot {
  static inline __attribute__((always_inline)) IntVector dot(const IntVector (&a)[4], const std::byte* b,
                                                             IntVector start) {
    __m512i products[4];
#pragma GCC unroll 4
    for (int quad = 0; quad < 4; ++quad) {
      products[quad] =
          _mm512_maddubs_epi16(reinterpret_cast<__m512i>(a[quad]), _mm512_loadu_si512(b + quad * quad_stride));
    }
    const __m512i sum =
        _mm512_add_epi16(_mm512_add_epi16(products[0], products[1]), _mm512_add_epi16(products[2], products[3]));
    return reinterpret_cast<IntVector>(_mm512_madd_epi16(sum, _mm512_set1_epi16(1))) + start;
  }
};

// Written in assembly so that the rest of this file may run on a processor without VNNI.
struct QuadDot {
  static inline __attribute__((always_inline)) IntVector dot(const IntVector (&a)[4], const std::byte* b,
                                                             IntVector start) {
#pragma GCC unroll 4
    for (int quad = 0; quad < 4; ++quad) {
      const __m512i right = _mm512_loadu_si512(b + quad * quad_stride);
      __asm__("vpdpbusd %2, %1, %0" : "+v"(start) : "v"(a[quad]), "vm"(right));
    }
    return start;
  }
};

#include "quant/gemm_kernels.inl"

}  // namespace

const GemmKernels gemm_avx512 = make_kernels<PairwiseDot>();
const GemmKernels gemm_avx512_vnni = make_kernels<QuadDot>();

}  // namespace nibble::cpu
