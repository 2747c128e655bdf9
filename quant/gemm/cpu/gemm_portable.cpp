// The GEMM kernels on decoded values for any machine: correct first, and the definition of the bits that the other
// levels give.
#include <utility>

#include "quant/format/codec.h"
#include "quant/gemm/cpu/gemm_kernels.h"
#include "quant/gemm/gemm_problem.h"

namespace nibble::cpu {
namespace {

#include "quant/isa/portable_vectors.inl"

constexpr int plain_rows = 4;
constexpr int plain_vectors = 1;
constexpr int64_t block_rows = 128;
constexpr int64_t block_columns = 128;
constexpr int64_t row_step = 4;
constexpr int64_t column_step = 4;

inline __attribute__((always_inline)) Vector broadcast(float value) {
  return Vector{value, value, value, value};
}

#include "quant/gemm/cpu/gemm_kernels.inl"

}  // namespace

const GemmKernels gemm_portable = make_kernels();

}  // namespace nibble::cpu
