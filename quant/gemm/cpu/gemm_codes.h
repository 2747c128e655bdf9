// nvfp4 x nvfp4 GEMMs as integer dot products of codes (quant/gemm/gemm.h): the kernels of each instruction-set level
// (gemm_codes_portable.cpp, gemm_codes_avx2.cpp, ...), which gemm_codes.cpp calls. Internal to quant.
//
// The kernels are compiled with flags that the machine may not have, so this header holds plain data only: an inline
// function here could be emitted by a kernel's source and be picked by the linker for everybody.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/format/dtype.h"
#include "quant/isa/instruction_set.h"

namespace nibble {
struct GemmProblem;
}

namespace nibble::cpu {

// Codes and E4M3 scales of a matrix [rows, inner], in tiles (quant/format/tile.h) or in rows.
struct CodeOperand {
  const uint8_t* codes;
  const uint8_t* scales;
  int64_t rows;
  int64_t code_stride, scale_stride;  // bytes from row to row, or from 16 rows to the next
  bool tiles;
};

// One part of the output, computed by one thread from all of the inner axis.
struct CodeBlock {
  CodeOperand a;                  // [m, inner]
  CodeOperand b;                  // [n, inner]
  int64_t blocks;                 // inner / 16
  int64_t first_row, rows;        // first_row is a multiple of 16
  int64_t first_column, columns;  // first_column is a multiple of 16
  void* output;                   // [m, n], f32 or bf16
  DType output_dtype;
  int64_t output_stride;
  double alpha;  // 24 significant bits
  bool accumulate;
  bool past_caches;  // stores go past the caches to memory; the output and its rows are aligned to 64 bytes
};

struct CodeKernels {
  int64_t row_step, column_step;  // multiples of these waste no work
  // The work of unpacking 16 rows of either operand, in units of the work of multiplying 16 rows by 16 columns.
  double unpacking_cost;
  size_t (*scratch_bytes)(const CodeBlock& block);  // 64-byte aligned memory for multiply()
  void (*multiply)(const CodeBlock& block, std::byte* scratch);
};

extern const CodeKernels code_kernels_portable;
extern const CodeKernels code_kernels_avx2;
extern const CodeKernels code_kernels_avx512;
extern const CodeKernels code_kernels_avx512_vnni;

const CodeKernels& code_kernels_of(InstructionSet level);

// The shape of the blocks into which an output [m, n] is cut.
struct CodeBlockShape {
  int64_t rows, columns;
};
CodeBlockShape choose_code_block(const CodeKernels& kernels, int64_t m, int64_t n, int threads);

// Computes gemm() of two nvfp4 operands without outer scales, on a level that the machine has; alpha includes the 1/4
// of the doubled integers.
void code_gemm(InstructionSet level, const GemmProblem& problem, double alpha);

}  // namespace nibble::cpu
