#include "quant/bf16_gemm.h"

#include <algorithm>
#include <cmath>

#include "dist/error.h"
#include "dist/thread_pool.h"
#include "quant/flush_subnormals.h"
#include "quant/gemm.h"
#include "quant/slab.h"
#include "quant/thread_scratch.h"

namespace nibble::cpu {
namespace {

Bf16Operand as_operand(const QuantizedTensor& tensor) {
  const Tensor& values = tensor.values;
  const int64_t first = tensor.transposed ? tensor.inner : tensor.rows;
  const int64_t second = tensor.transposed ? tensor.rows : tensor.inner;
  NIBBLE_CHECK(tensor.format == Format::bf16 && values.dtype() == DType::bf16, "operand in BF16");
  NIBBLE_CHECK(values.rank() == 2 && values.size(0) == first && values.size(1) == second, "operand [rows, inner]");
  if (tensor.transposed) return {values.as<BFloat16>(), tensor.rows, 1, tensor.rows};
  return {values.as<BFloat16>(), tensor.rows, tensor.inner, 1};
}

struct Extent2d {
  int64_t rows, columns;
};

// Halves the largest block until every thread has some, and several if that leaves blocks that are worth packing.
Extent2d choose_block(const Bf16Kernels& kernels, int64_t m, int64_t n) {
  Extent2d block{std::min(kernels.block_rows, round_up(m, kernels.row_step)),
                 std::min(kernels.block_columns, round_up(n, kernels.column_step))};
  const int64_t threads = compute_threads();
  if (threads == 1) return block;
  const Extent2d worthwhile{8 * kernels.row_step, 4 * kernels.column_step};
  const Extent2d smallest{kernels.row_step, kernels.column_step};
  const auto halve_until = [&](int64_t wanted, const Extent2d& least) {
    while (div_ceil(m, block.rows) * div_ceil(n, block.columns) < wanted) {
      const bool shorter = block.rows > least.rows;
      const bool narrower = block.columns > least.columns;
      if (!shorter && !narrower) break;
      if (shorter && (block.rows >= block.columns || !narrower)) {
        block.rows = std::max(least.rows, round_up(block.rows / 2, kernels.row_step));
      } else {
        block.columns = std::max(least.columns, round_up(block.columns / 2, kernels.column_step));
      }
    }
  };
  halve_until(4 * threads, worthwhile);
  halve_until(threads, smallest);
  // Blocks of one size, so that none is left to the end.
  block.rows = round_up(div_ceil(m, div_ceil(m, block.rows)), kernels.row_step);
  block.columns = round_up(div_ceil(n, div_ceil(n, block.columns)), kernels.column_step);
  return block;
}

}  // namespace

const Bf16Kernels& bf16_kernels_of(InstructionSet level) {
  switch (level) {
    case InstructionSet::portable: return bf16_portable;
    case InstructionSet::avx2: return bf16_avx2;
    case InstructionSet::avx512:
    case InstructionSet::avx512_vnni: return bf16_avx512;
    case InstructionSet::avx512_bf16: break;
  }
#if defined(__x86_64__)
  // Intel's processors start a BF16 dot product every other cycle, on one port: half the rate of FP32 multiply-adds.
  static const bool slow_dot_products = __builtin_cpu_is("intel");
  if (slow_dot_products) return bf16_avx512;
#endif
  return bf16_avx512_bf16;
}

void bf16_gemm_with(const Bf16Kernels& kernels, const GemmProblem& problem) {
  const QuantizedTensor& a = problem.a;
  const QuantizedTensor& b = problem.b;
  const Tensor& output = problem.output;
  const int rotation_bits = a.rotation_bits + b.rotation_bits;
  NIBBLE_CHECK(a.inner == b.inner, "the operands of a product share the inner axis");
  NIBBLE_CHECK(rotation_bits % 2 == 0, "both operands of a product are rotated alike");
  NIBBLE_CHECK(output.dtype() == DType::f32 || output.dtype() == DType::bf16, "a product is f32 or bf16");
  NIBBLE_CHECK(!problem.accumulate || output.dtype() == DType::f32, "products accumulate in f32");
  NIBBLE_CHECK(output.rank() == 2 && output.size(0) == a.rows && output.size(1) == b.rows, "output [m, n]");
  Bf16GemmBlock whole{};
  whole.a = as_operand(a);
  whole.b = as_operand(b);
  whole.inner = a.inner;
  whole.output = output.data();
  whole.output_dtype = output.dtype();
  whole.output_stride = b.rows;
  whole.alpha = std::ldexp(1.0F, -rotation_bits / 2);
  whole.accumulate = problem.accumulate;
  if (a.rows == 0 || b.rows == 0) return;

  const Extent2d extent = choose_block(kernels, a.rows, b.rows);
  const int64_t blocks_down = div_ceil(a.rows, extent.rows);
  const int64_t blocks_across = div_ceil(b.rows, extent.columns);
  parallel_for(static_cast<size_t>(blocks_down * blocks_across), 1, [&](size_t begin, size_t end) {
    const FlushSubnormals flush;
    for (size_t index = begin; index < end; ++index) {
      Bf16GemmBlock block = whole;
      block.first_row = static_cast<int64_t>(index) % blocks_down * extent.rows;
      block.rows = std::min(extent.rows, a.rows - block.first_row);
      block.first_column = static_cast<int64_t>(index) / blocks_down * extent.columns;
      block.columns = std::min(extent.columns, b.rows - block.first_column);
      kernels.gemm_block(block, thread_scratch(kernels.scratch_bytes));
    }
  });
}

}  // namespace nibble::cpu
