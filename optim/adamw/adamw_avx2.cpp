// AdamW for AVX2, with the bits of adamw_portable.cpp.
#include <immintrin.h>

#include <cmath>

#include "dist/base/vectorize.h"
#include "optim/adamw/adamw_update.h"
#include "quant/format/codec.h"

namespace nibble::cpu {
namespace {

// Runs Philox on four counters, in the low halves of 64-bit elements; the high halves are ignored.
NIBBLE_INLINE void random_halves(const NoiseStream& stream, uint64_t block, uint16_t* halves) {
  const auto all = [](uint32_t value) { return _mm256_set1_epi64x(static_cast<long long>(uint64_t{value})); };
  // Elements 0 and 2 are blocks 0 and 1, and the others are blocks 2 and 3, so that unpacking leaves blocks in order.
  const __m256i order = _mm256_setr_epi64x(0, 2, 1, 3);
  constexpr int vectors = 4;
  __m256i words[vectors][4];
#pragma GCC unroll 4
  for (int i = 0; i < vectors; ++i) {
    const uint64_t first = block + 4 * static_cast<uint64_t>(i);
    const __m256i index = _mm256_add_epi64(_mm256_set1_epi64x(static_cast<long long>(first)), order);
    words[i][0] = index;
    words[i][1] =
        _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi64(index, 32), all(0xFFu)), all(stream.micro_batch << 8));
    words[i][2] = all(stream.step);
    words[i][3] = all((stream.tensor_id & 0xFFFFFFu) | (static_cast<uint32_t>(stream.purpose) << 24));
  }
  auto key0 = static_cast<uint32_t>(stream.seed);
  auto key1 = static_cast<uint32_t>(stream.seed >> 32);
  for (int round = 0; round < 10; ++round) {
#pragma GCC unroll 4
    for (int i = 0; i < vectors; ++i) {
      const __m256i product0 = _mm256_mul_epu32(words[i][0], all(0xD2511F53u));
      const __m256i product1 = _mm256_mul_epu32(words[i][2], all(0xCD9E8D57u));
      words[i][0] = _mm256_xor_si256(_mm256_srli_epi64(product1, 32), _mm256_xor_si256(words[i][1], all(key0)));
      words[i][1] = product1;
      words[i][2] = _mm256_xor_si256(_mm256_srli_epi64(product0, 32), _mm256_xor_si256(words[i][3], all(key1)));
      words[i][3] = product0;
    }
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
#pragma GCC unroll 4
  for (int i = 0; i < vectors; ++i) {
    const __m256i low = _mm256_blend_epi32(words[i][0], _mm256_slli_epi64(words[i][1], 32), 0xAA);
    const __m256i high = _mm256_blend_epi32(words[i][2], _mm256_slli_epi64(words[i][3], 32), 0xAA);
    auto* const to = reinterpret_cast<__m256i*>(halves + 32 * i);
    _mm256_store_si256(to, _mm256_unpacklo_epi64(low, high));
    _mm256_store_si256(to + 1, _mm256_unpackhi_epi64(low, high));
  }
}
#include "optim/adamw/adamw_update.inl"

}  // namespace

void adamw_avx2(const AdamWUpdate& update, const AdamWBuffers& buffers, uint64_t element, size_t count) {
  update_tensor(update, buffers, element, count);
}

}  // namespace nibble::cpu
