// Functions that the CPU's GEMMs of all formats share (gemm.cpp, bf16_gemm.cpp, gemm_codes.cpp). Internal to quant.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "dist/base/error.h"
#include "dist/device/thread_pool.h"
#include "quant/gemm/gemm_problem.h"

namespace nibble::cpu {

// Checks what gemm() requires of every pair of operands.
inline void check_gemm(const GemmProblem& problem) {
  const QuantizedTensor& a = problem.a;
  const QuantizedTensor& b = problem.b;
  const Tensor& output = problem.output;
  NIBBLE_CHECK(a.inner == b.inner, "the operands of a GEMM share the inner axis");
  NIBBLE_CHECK((a.rotation_bits + b.rotation_bits) % 2 == 0, "both operands of a GEMM are rotated alike");
  NIBBLE_CHECK(output.dtype() == DType::f32 || output.dtype() == DType::bf16, "the output of a GEMM is f32 or bf16");
  NIBBLE_CHECK(!problem.accumulate || output.dtype() == DType::f32, "GEMMs accumulate in f32");
  NIBBLE_CHECK(output.rank() == 2 && output.size(0) == a.rows && output.size(1) == b.rows, "output [m, n]");
}

struct BlockExtent {
  int64_t rows, columns;
};

// Calls multiply(block) for blocks of at most `extent` that cover an output [m, n], on all threads: copies of `whole`
// with first_row, rows, first_column and columns filled in.
template <class Block, class Multiply>
void for_each_block(const Block& whole, int64_t m, int64_t n, const BlockExtent& extent, const Multiply& multiply) {
  const int64_t down = div_ceil(m, extent.rows);
  const int64_t across = div_ceil(n, extent.columns);
  parallel_for(static_cast<size_t>(down * across), 1, [&](size_t begin, size_t end) {
    for (size_t index = begin; index < end; ++index) {
      Block block = whole;
      block.first_row = static_cast<int64_t>(index) % down * extent.rows;
      block.rows = std::min(extent.rows, m - block.first_row);
      block.first_column = static_cast<int64_t>(index) / down * extent.columns;
      block.columns = std::min(extent.columns, n - block.first_column);
      multiply(block);
    }
  });
}

}  // namespace nibble::cpu
