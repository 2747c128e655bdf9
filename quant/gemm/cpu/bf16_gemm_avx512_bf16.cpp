// BF16 GEMM kernels by the BF16 dot products of AVX-512.
#include <immintrin.h>

#include <utility>

#include "quant/gemm/cpu/bf16_gemm.h"

namespace nibble::cpu {
namespace {

#include "quant/isa/bf16_avx512_vectors.inl"

using Element = uint32_t;

constexpr int64_t members = 1;
constexpr int register_rows = 14;
constexpr int register_vectors = 2;
constexpr int64_t depth_pairs = 256;
constexpr int64_t block_rows = 336;
constexpr int64_t block_columns = 512;

inline __attribute__((always_inline)) Vector broadcast(const uint32_t* from) {
  return reinterpret_cast<Vector>(_mm512_set1_epi32(static_cast<int>(*from)));
}
inline __attribute__((always_inline)) Vector multiply_add(Vector left, Vector right, Vector sum) {
  return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(left), reinterpret_cast<__m512bh>(right));
}
inline __attribute__((always_inline)) HalfWords round_pair(Vector low, Vector high) {
  return reinterpret_cast<HalfWords>(_mm512_cvtne2ps_pbh(high, low));
}

#include "quant/gemm/cpu/bf16_gemm_kernels.inl"

}  // namespace

const Bf16Kernels bf16_avx512_bf16 = make_kernels();

}  // namespace nibble::cpu
