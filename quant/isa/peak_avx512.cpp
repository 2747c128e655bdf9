// The limits of AVX-512 without dot products.
#include <immintrin.h>

#include "quant/isa/peak_kernels.h"

namespace nibble::cpu {
namespace {

using Vector = float __attribute__((vector_size(64)));
using IntVector = int32_t __attribute__((vector_size(64)));

inline __attribute__((always_inline)) __m512 to_float(__m512i values) {
  return reinterpret_cast<__m512>(__builtin_convertvector(reinterpret_cast<IntVector>(values), Vector));
}

constexpr int lanes = 16;
constexpr int fma_chains = 24;
constexpr int block_chains = 12;

void fma_chain(int64_t steps) {
  __m512 factor = _mm512_set1_ps(0.5F);
  __m512 sums[fma_chains];
  for (__m512& sum : sums) sum = _mm512_setzero_ps();
  for (int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 24
    for (__m512& sum : sums) sum = _mm512_fmadd_ps(sum, factor, factor);
  }
  for (__m512& sum : sums) NIBBLE_OPAQUE(sum);
}

// A block's products, added in pairs, fit 16 bits.
inline __attribute__((always_inline)) __m512i block_dot(__m512i& a, __m512i b, __m512i ones) {
  __m512i pairs[4];
#pragma GCC unroll 4
  for (__m512i& pair : pairs) {
    NIBBLE_OPAQUE(a);
    pair = _mm512_maddubs_epi16(a, b);
  }
  return _mm512_madd_epi16(_mm512_add_epi16(_mm512_add_epi16(pairs[0], pairs[1]), _mm512_add_epi16(pairs[2], pairs[3])),
                           ones);
}

void int8_chain(int64_t steps) {
  __m512i a = _mm512_set1_epi8(1);
  const __m512i b = _mm512_set1_epi8(2);
  const __m512i ones = _mm512_set1_epi16(1);
  __m512i sums[block_chains];
  for (__m512i& sum : sums) sum = _mm512_setzero_si512();
  for (int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 12
    for (__m512i& sum : sums) sum = _mm512_add_epi32(sum, block_dot(a, b, ones));
  }
  for (__m512i& sum : sums) NIBBLE_OPAQUE(sum);
}

void nvfp4_chain(int64_t steps) {
  __m512i a = _mm512_set1_epi8(1);
  const __m512i b = _mm512_set1_epi8(2);
  const __m512i ones = _mm512_set1_epi16(1);
  __m512 scale = _mm512_set1_ps(0.5F);
  __m512 sums[block_chains];
  for (__m512& sum : sums) sum = _mm512_setzero_ps();
  for (int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 12
    for (__m512& sum : sums) {
      NIBBLE_OPAQUE(scale);
      sum = _mm512_fmadd_ps(to_float(block_dot(a, b, ones)), _mm512_mul_ps(scale, scale), sum);
    }
  }
  for (__m512& sum : sums) NIBBLE_OPAQUE(sum);
}

}  // namespace

const PeakTable peak_avx512 = {{2.0 * lanes * fma_chains, fma_chain},
                               {},
                               {32.0 * lanes * block_chains, int8_chain},
                               {32.0 * lanes * block_chains, nvfp4_chain}};

}  // namespace nibble::cpu
