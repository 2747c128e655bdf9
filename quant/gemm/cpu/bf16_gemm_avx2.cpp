// BF16 GEMM kernels for AVX2 and FMA.
#include <immintrin.h>

#include <utility>

#include "quant/gemm/cpu/bf16_gemm.h"

namespace nibble::cpu {
namespace {

constexpr int lanes = 8;
using Vector = float __attribute__((vector_size(32)));
using UnsignedVector = uint32_t __attribute__((vector_size(32)));
using Words = uint16_t __attribute__((vector_size(16)));
using HalfWords = uint16_t __attribute__((vector_size(32)));
using Element = float;

constexpr int64_t members = 2;
constexpr int register_rows = 6;
constexpr int register_vectors = 2;
constexpr int64_t depth_pairs = 128;
constexpr int64_t block_rows = 240;
constexpr int64_t block_columns = 256;

inline __attribute__((always_inline)) Vector broadcast(const float* from) {
  return _mm256_broadcast_ss(from);
}
inline __attribute__((always_inline)) Vector multiply_add(Vector left, Vector right, Vector sum) {
  return _mm256_fmadd_ps(left, right, sum);
}
inline __attribute__((always_inline)) UnsignedVector load_words(const uint16_t* from) {
  Words words;
  __builtin_memcpy(&words, from, sizeof words);
  return __builtin_convertvector(words, UnsignedVector);
}
inline __attribute__((always_inline)) UnsignedVector load_words(const uint16_t* from, int64_t count) {
  uint16_t some[lanes] = {};
  for (int64_t i = 0; i < count; ++i) some[i] = from[i];
  return load_words(some);
}
inline __attribute__((always_inline)) UnsignedVector rounded(Vector value) {  // the result is in the low halves
  const auto bits = reinterpret_cast<UnsignedVector>(value);
  const UnsignedVector nearest = bits + 0x7FFFU + ((bits >> 16) & 1U);
  return (value == value ? nearest : bits | 0x00400000U) >> 16;
}
inline __attribute__((always_inline)) HalfWords round_pair(Vector low, Vector high) {
  const __m256i mixed =
      _mm256_packus_epi32(reinterpret_cast<__m256i>(rounded(low)), reinterpret_cast<__m256i>(rounded(high)));
  return reinterpret_cast<HalfWords>(_mm256_permute4x64_epi64(mixed, 0xD8));
}

#include "quant/gemm/cpu/bf16_gemm_kernels.inl"

}  // namespace

const Bf16Kernels bf16_avx2 = make_kernels();

}  // namespace nibble::cpu
