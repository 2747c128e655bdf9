// The limits of AVX2: it has 16 registers, which hold at most ten chains of multiply-adds.
#include <immintrin.h>

#include "quant/isa/peak_kernels.h"

namespace nibble::cpu {
namespace {

constexpr int lanes = 8;
constexpr int fma_chains = 10;
constexpr int block_chains = 6;

void fma_chain(int64_t steps) {
  __m256 factor = _mm256_set1_ps(0.5F);
  __m256 sums[fma_chains];
  for (__m256& sum : sums) sum = _mm256_setzero_ps();
  for (int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 10
    for (__m256& sum : sums) sum = _mm256_fmadd_ps(sum, factor, factor);
  }
  for (__m256& sum : sums) NIBBLE_OPAQUE(sum);
}

// A block's products, added in pairs, fit 16 bits.
inline __attribute__((always_inline)) __m256i block_dot(__m256i& a, __m256i b, __m256i ones) {
  __m256i pairs[4];
#pragma GCC unroll 4
  for (__m256i& pair : pairs) {
    NIBBLE_OPAQUE(a);
    pair = _mm256_maddubs_epi16(a, b);
  }
  return _mm256_madd_epi16(_mm256_add_epi16(_mm256_add_epi16(pairs[0], pairs[1]), _mm256_add_epi16(pairs[2], pairs[3])),
                           ones);
}

void int8_chain(int64_t steps) {
  __m256i a = _mm256_set1_epi8(1);
  const __m256i b = _mm256_set1_epi8(2);
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i sums[block_chains];
  for (__m256i& sum : sums) sum = _mm256_setzero_si256();
  for (int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 6
    for (__m256i& sum : sums) sum = _mm256_add_epi32(sum, block_dot(a, b, ones));
  }
  for (__m256i& sum : sums) NIBBLE_OPAQUE(sum);
}

void nvfp4_chain(int64_t steps) {
  __m256i a = _mm256_set1_epi8(1);
  const __m256i b = _mm256_set1_epi8(2);
  const __m256i ones = _mm256_set1_epi16(1);
  __m256 scale = _mm256_set1_ps(0.5F);
  __m256 sums[block_chains];
  for (__m256& sum : sums) sum = _mm256_setzero_ps();
  for (int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 6
    for (__m256& sum : sums) {
      NIBBLE_OPAQUE(scale);
      sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(block_dot(a, b, ones)), _mm256_mul_ps(scale, scale), sum);
    }
  }
  for (__m256& sum : sums) NIBBLE_OPAQUE(sum);
}

}  // namespace

const PeakTable peak_avx2 = {{2.0 * lanes * fma_chains, fma_chain},
                             {},
                             {32.0 * lanes * block_chains, int8_chain},
                             {32.0 * lanes * block_chains, nvfp4_chain}};

}  // namespace nibble::cpu
