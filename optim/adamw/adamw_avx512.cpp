// AdamW for AVX-512, with the bits of adamw_portable.cpp.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // g++ 12's own intrinsics: bug 105593
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include <cmath>

#include "dist/base/vectorize.h"
#include "optim/adamw/adamw_update.h"
#include "quant/format/codec.h"

namespace nibble::cpu {
namespace {

// Runs Philox on eight counters, in the low halves of 64-bit elements; the high halves are ignored.
NIBBLE_INLINE void random_halves(const NoiseStream& stream, uint64_t block, uint16_t* halves) {
  const auto all = [](uint32_t value) { return _mm512_set1_epi64(static_cast<long long>(uint64_t{value})); };
  // Elements 0, 2, 4, 6 are blocks 0 to 3, and the others are blocks 4 to 7, so that unpacking leaves blocks in order.
  const __m512i order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
  __m512i words[2][4];
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    const uint64_t first = block + 8 * static_cast<uint64_t>(i);
    const __m512i index = _mm512_add_epi64(_mm512_set1_epi64(static_cast<long long>(first)), order);
    words[i][0] = index;
    words[i][1] =
        _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi64(index, 32), all(0xFFu)), all(stream.micro_batch << 8));
    words[i][2] = all(stream.step);
    words[i][3] = all((stream.tensor_id & 0xFFFFFFu) | (static_cast<uint32_t>(stream.purpose) << 24));
  }
  auto key0 = static_cast<uint32_t>(stream.seed);
  auto key1 = static_cast<uint32_t>(stream.seed >> 32);
  constexpr int exclusive_or = 0x96;  // truth table of a three-input exclusive or
  for (int round = 0; round < 10; ++round) {
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const __m512i product0 = _mm512_mul_epu32(words[i][0], all(0xD2511F53u));
      const __m512i product1 = _mm512_mul_epu32(words[i][2], all(0xCD9E8D57u));
      words[i][0] = _mm512_ternarylogic_epi64(_mm512_srli_epi64(product1, 32), words[i][1], all(key0), exclusive_or);
      words[i][1] = product1;
      words[i][2] = _mm512_ternarylogic_epi64(_mm512_srli_epi64(product0, 32), words[i][3], all(key1), exclusive_or);
      words[i][3] = product0;
    }
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    const __m512i low = _mm512_mask_shuffle_epi32(words[i][0], 0xAAAA, words[i][1], _MM_PERM_CCAA);
    const __m512i high = _mm512_mask_shuffle_epi32(words[i][2], 0xAAAA, words[i][3], _MM_PERM_CCAA);
    _mm512_store_si512(halves + 64 * i, _mm512_unpacklo_epi64(low, high));
    _mm512_store_si512(halves + 64 * i + 32, _mm512_unpackhi_epi64(low, high));
  }
}
#include "optim/adamw/adamw_update.inl"

}  // namespace

void adamw_avx512(const AdamWUpdate& update, const AdamWBuffers& buffers, uint64_t element, size_t count) {
  update_tensor(update, buffers, element, count);
}

}  // namespace nibble::cpu
