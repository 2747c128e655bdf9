// The limit of BF16 dot products.
#include <immintrin.h>

#include "quant/isa/peak_kernels.h"

namespace nibble::cpu {
namespace {

constexpr int lanes = 16;
constexpr int chains = 24;

void bf16_chain(int64_t steps) {
  const __m512bh a = _mm512_cvtne2ps_pbh(_mm512_set1_ps(0.5F), _mm512_set1_ps(0.5F));
  __m512 sums[chains];
  for (__m512& sum : sums) sum = _mm512_setzero_ps();
  for (int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 24
    for (__m512& sum : sums) sum = _mm512_dpbf16_ps(sum, a, a);
  }
  for (__m512& sum : sums) NIBBLE_OPAQUE(sum);
}

}  // namespace

const PeakTable peak_avx512_bf16 = {{}, {4.0 * lanes * chains, bf16_chain}, {}, {}};

}  // namespace nibble::cpu
