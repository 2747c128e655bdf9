// BF16 GEMM kernels for AVX-512 (F, BW, VL, DQ) by FP32 multiply-adds.
#include <immintrin.h>

#include <utility>

#include "quant/gemm/cpu/bf16_gemm.h"

namespace nibble::cpu {
namespace {

#include "quant/isa/bf16_avx512_vectors.inl"

using Element = float;

constexpr int64_t members = 2;
constexpr int register_rows = 14;
constexpr int register_vectors = 2;
constexpr int64_t depth_pairs = 128;
constexpr int64_t block_rows = 336;
constexpr int64_t block_columns = 512;

inline __attribute__((always_inline)) Vector broadcast(const float* from) {
  return _mm512_set1_ps(*from);
}
inline __attribute__((always_inline)) Vector multiply_add(Vector left, Vector right, Vector sum) {
  return _mm512_fmadd_ps(left, right, sum);
}
inline __attribute__((always_inline)) UnsignedVector rounded(Vector value) {  // the result is in the high halves
  const auto bits = reinterpret_cast<UnsignedVector>(value);
  const UnsignedVector nearest = bits + 0x7FFFU + ((bits >> 16) & 1U);
  return value == value ? nearest : bits | 0x00400000U;
}
inline __attribute__((always_inline)) HalfWords round_pair(Vector low, Vector high) {
  const UnsignedVector halves = (rounded(low) >> 16) | (rounded(high) & 0xFFFF0000U);
  const HalfWords order = {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30,
                           1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31};
  return reinterpret_cast<HalfWords>(
      _mm512_permutexvar_epi16(reinterpret_cast<__m512i>(order), reinterpret_cast<__m512i>(halves)));
}

#include "quant/gemm/cpu/bf16_gemm_kernels.inl"

}  // namespace

const Bf16Kernels bf16_avx512 = make_kernels();

}  // namespace nibble::cpu
