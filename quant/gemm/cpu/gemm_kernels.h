// GEMMs on decoded values, for all formats: the kernels of each instruction-set level (gemm_portable.cpp,
// gemm_avx2.cpp, gemm_avx512.cpp), which gemm.cpp calls. GEMMs of two nvfp4 operands are those of
// quant/gemm/cpu/gemm_codes.h. Internal to quant; tests use this header to run every level that the machine has.
//
// The kernels are compiled with flags that the machine may not have, so this header holds plain data only: an inline
// function here could be emitted by a kernel's source and be picked by the linker for everybody.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/format/dtype.h"
#include "quant/isa/instruction_set.h"
#include "quant/recipe/operand_spec.h"

namespace nibble {
struct GemmProblem;
struct SmallMatmul;
}  // namespace nibble

namespace nibble::cpu {

// A matrix [rows, inner].
struct GemmOperand {
  const void* values;
  Format format;
  int64_t rows;
  int64_t row_stride;                     // elements; quantised formats: bytes
  int64_t inner_stride;                   // elements; unused in quantised formats
  const uint8_t* block_scales = nullptr;  // [rows, scale_stride], in formats that have them
  int64_t scale_stride = 0;
  const float* outer_scales = nullptr;  // [rows, outer_stride], one for `outer_block` elements; null: none
  int64_t outer_stride = 0;
};
constexpr int64_t outer_block = 128;

// One block of the output, computed by one thread from all of the inner axis.
struct GemmBlock {
  GemmOperand a;  // [m, inner]
  GemmOperand b;  // [n, inner]
  int64_t inner;
  int64_t first_row, rows;        // rows <= GemmKernels::block_rows
  int64_t first_column, columns;  // columns <= GemmKernels::block_columns
  void* output;                   // [m, n], f32 or bf16
  DType output_dtype;
  int64_t output_stride;
  double alpha;  // 24 significant bits
  bool accumulate;
};

struct GemmKernels {
  int64_t block_rows, block_columns;  // the largest GemmBlock, for which scratch_bytes suffices
  int64_t row_step, column_step;      // multiples of these waste no work
  size_t scratch_bytes;               // 64-byte aligned memory that each call needs
  void (*gemm_block)(const GemmBlock& block, std::byte* scratch);
  void (*small_matmul)(const SmallMatmul& problem, std::byte* scratch);
};

extern const GemmKernels gemm_portable;
extern const GemmKernels gemm_avx2;
extern const GemmKernels gemm_avx512;

const GemmKernels& gemm_kernels_of(InstructionSet level);

// gemm() and small_matmul() on a level that the machine has.
void gemm_with(InstructionSet level, const GemmProblem& problem);
void small_matmul_with(InstructionSet level, const SmallMatmul& problem);

}  // namespace nibble::cpu
