// The GEMM kernels on decoded values for AVX2 and FMA. They give the bits of gemm_portable.cpp.
#include <immintrin.h>

#include <utility>

#include "quant/format/codec.h"
#include "quant/gemm/cpu/gemm_kernels.h"
#include "quant/gemm/gemm_problem.h"

namespace nibble::cpu {
namespace {

constexpr int lanes = 8;
using Vector = float __attribute__((vector_size(32)));
using UnsignedVector = uint32_t __attribute__((vector_size(32)));
using IntVector = int32_t __attribute__((vector_size(32)));

constexpr int plain_rows = 6;
constexpr int plain_vectors = 2;
constexpr int64_t block_rows = 288;
constexpr int64_t block_columns = 256;
constexpr int64_t row_step = 6;
constexpr int64_t column_step = 16;

inline __attribute__((always_inline)) Vector fused(Vector a, Vector b, Vector c) {
  return _mm256_fmadd_ps(a, b, c);
}
inline __attribute__((always_inline)) Vector broadcast(float value) {
  return _mm256_set1_ps(value);
}
#include "quant/gemm/cpu/gemm_kernels.inl"

}  // namespace

const GemmKernels gemm_avx2 = make_kernels();

}  // namespace nibble::cpu
