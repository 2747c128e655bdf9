// BF16 x BF16 GEMMs: the kernels of each instruction-set level (bf16_gemm_portable.cpp, bf16_gemm_avx2.cpp, ...), which
// quant/gemm/cpu/bf16_gemm.cpp and quant/gemm/cpu/packed_matmul.cpp call. Internal to quant; tests use this header to
// run every kernel that the machine has. The sums are those of quant/gemm/cpu/packed_matmul.h.
//
// The kernels are compiled with flags that the machine may not have, so this header holds plain data only: an inline
// function here could be emitted by a kernel's source and be picked by the linker for everybody.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/format/dtype.h"
#include "quant/gemm/cpu/packed_matmul.h"
#include "quant/isa/instruction_set.h"

namespace nibble {
struct GemmProblem;
}

namespace nibble::cpu {

// A matrix [rows, inner].
struct Bf16Operand {
  const BFloat16* values;
  int64_t rows;
  int64_t row_stride, inner_stride;  // elements
};

// One block of the output, computed by one thread from all of the inner axis.
struct Bf16GemmBlock {
  Bf16Operand a;  // [m, inner]
  Bf16Operand b;  // [n, inner]
  int64_t inner;
  int64_t first_row, rows;        // rows <= Bf16Kernels::block_rows
  int64_t first_column, columns;  // columns <= Bf16Kernels::block_columns
  void* output;                   // [m, n], f32 or bf16
  DType output_dtype;
  int64_t output_stride;
  float alpha;
  bool accumulate;  // f32: output += the rounded result
};

struct Bf16Kernels {
  int64_t block_rows, block_columns;  // the largest Bf16GemmBlock, for which scratch_bytes suffices
  int64_t row_step, column_step;      // multiples of these waste no work
  size_t scratch_bytes;               // 64-byte aligned memory that each call but pack_right needs
  void (*gemm_block)(const Bf16GemmBlock& block, std::byte* scratch);
  size_t (*packed_right_bytes)(int64_t k, int64_t n);
  void (*pack_right)(const MatrixBf16& b, int64_t k, int64_t n, std::byte* packed);
  void (*packed_matmul)(const PackedMatmul& problem, std::byte* scratch);
};

extern const Bf16Kernels bf16_portable;
extern const Bf16Kernels bf16_avx2;
extern const Bf16Kernels bf16_avx512;       // FP32 multiply-adds
extern const Bf16Kernels bf16_avx512_bf16;  // BF16 dot products

// Returns the fastest kernels of a level that the machine has.
const Bf16Kernels& bf16_kernels_of(InstructionSet level);

// gemm() of two BF16 operands; packed_matmul() with a right operand that was packed by the same kernels.
void bf16_gemm_with(const Bf16Kernels& kernels, const GemmProblem& problem);
void packed_matmul_with(const Bf16Kernels& kernels, const PackedMatmul& problem);

}  // namespace nibble::cpu
