#include "quant/gemm/cpu/packed_matmul.h"

#include "quant/format/flush_subnormals.h"
#include "quant/gemm/cpu/bf16_gemm.h"
#include "quant/isa/instruction_set.h"
#include "quant/isa/thread_scratch.h"

namespace nibble {
namespace cpu {

void packed_matmul_with(const Bf16Kernels& kernels, const PackedMatmul& problem) {
  const FlushSubnormals flush;
  kernels.packed_matmul(problem, thread_scratch(kernels.scratch_bytes));
}

}  // namespace cpu

size_t packed_right_bytes(int64_t k, int64_t n) {
  return (cpu::bf16_kernels_of(instruction_set()).packed_right_bytes(k, n) + 63) / 64 * 64;
}

void pack_right(const MatrixBf16& b, int64_t k, int64_t n, std::byte* packed) {
  cpu::bf16_kernels_of(instruction_set()).pack_right(b, k, n, packed);
}

void packed_matmul(const PackedMatmul& problem) {
  cpu::packed_matmul_with(cpu::bf16_kernels_of(instruction_set()), problem);
}

}  // namespace nibble
