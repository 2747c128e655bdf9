// The limits of 8-bit dot products.
#include <immintrin.h>

#include "quant/isa/peak_kernels.h"

namespace nibble::cpu {
namespace {

constexpr int lanes = 16;
constexpr int dot_chains = 12;
constexpr int block_chains = 12;

// The loop is in assembly because the compiler moves the intrinsic's sums through other registers.
void int8_chain(int64_t steps) {
  const __m512i a = _mm512_set1_epi8(1);
  __m512i sums[dot_chains];
  for (__m512i& sum : sums) sum = _mm512_setzero_si512();
  for (int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 12
    for (__m512i& sum : sums) __asm__ volatile("vpdpbusd %1, %1, %0" : "+v"(sum) : "v"(a));
  }
}

// The sum of a block starts from the bits of a large number less the bias, so that it needs no conversion: four dot
// products, one multiply-add for each scale (gemm_codes_avx512_vnni.cpp).
void nvfp4_chain(int64_t steps) {
  __m512i a = _mm512_set1_epi8(1);
  const __m512i b = _mm512_set1_epi8(2);
  __m512 scale = _mm512_set1_ps(0.5F);
  __m512 sums[block_chains];
  for (__m512& sum : sums) sum = _mm512_setzero_ps();
  for (int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 12
    for (__m512& sum : sums) {
      NIBBLE_OPAQUE(a);
      NIBBLE_OPAQUE(scale);
      __m512i dot = _mm512_dpbusd_epi32(b, a, b);
      dot = _mm512_dpbusd_epi32(dot, a, b);
      dot = _mm512_dpbusd_epi32(dot, a, b);
      dot = _mm512_dpbusd_epi32(dot, a, b);
      sum = _mm512_fmadd_ps(_mm512_fmadd_ps(_mm512_castsi512_ps(dot), scale, scale), scale, sum);
    }
  }
  for (__m512& sum : sums) NIBBLE_OPAQUE(sum);
}

}  // namespace

const PeakTable peak_avx512_vnni = {
    {}, {}, {8.0 * lanes * dot_chains, int8_chain}, {32.0 * lanes * block_chains, nvfp4_chain}};

}  // namespace nibble::cpu
