// BF16 products for AVX2 and FMA.
#include <immintrin.h>

#include <utility>

#include "quant/bf16_gemm.h"

namespace nibble::cpu {
namespace {

constexpr int lanes = 8;
using Vector = float __attribute__((vector_size(32)));
using UnsignedVector = uint32_t __attribute__((vector_size(32)));
using Element = float;

constexpr int64_t members = 2;
constexpr int tile_rows = 6;
constexpr int tile_vectors = 2;
constexpr int64_t depth_pairs = 128;
constexpr int64_t block_rows = 240;
constexpr int64_t block_columns = 256;

inline __attribute__((always_inline)) Vector broadcast(const float* from) {
  return _mm256_broadcast_ss(from);
}
inline __attribute__((always_inline)) Vector multiply_add(Vector left, Vector right, Vector sum) {
  return _mm256_fmadd_ps(left, right, sum);
}
inline __attribute__((always_inline)) UnsignedVector load_words(const uint16_t* from, int64_t count) {
  uint16_t words[lanes] = {};
  for (int64_t i = 0; i < count && count < lanes; ++i) words[i] = from[i];
  const void* const there = count < lanes ? words : from;
  return reinterpret_cast<UnsignedVector>(_mm256_cvtepu16_epi32(_mm_loadu_si128(static_cast<const __m128i*>(there))));
}

#include "quant/bf16_gemm_kernels.inl"

}  // namespace

const Bf16Kernels bf16_avx2 = make_kernels();

}  // namespace nibble::cpu
