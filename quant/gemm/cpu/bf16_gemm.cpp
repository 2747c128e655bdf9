#include "quant/gemm/cpu/bf16_gemm.h"

#include <algorithm>
#include <cmath>

#include "dist/base/error.h"
#include "dist/device/thread_pool.h"
#include "quant/format/flush_subnormals.h"
#include "quant/gemm/gemm_common.h"
#include "quant/gemm/gemm_problem.h"
#include "quant/isa/kernel_table.h"
#include "quant/isa/thread_scratch.h"

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

// Chooses the block of a thread: halves the largest one until every thread has some, and several if that leaves blocks
// that are worth packing.
BlockExtent choose_block(const Bf16Kernels& kernels, int64_t m, int64_t n) {
  BlockExtent block{std::min(kernels.block_rows, round_up(m, kernels.row_step)),
                    std::min(kernels.block_columns, round_up(n, kernels.column_step))};
  const int64_t threads = compute_threads();
  if (threads == 1) return block;
  const BlockExtent worthwhile{8 * kernels.row_step, 4 * kernels.column_step};
  const BlockExtent smallest{kernels.row_step, kernels.column_step};
  const auto halve_until = [&](int64_t wanted, const BlockExtent& least) {
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
  // Blocks have one size, so that no small one is left to the end.
  block.rows = round_up(div_ceil(m, div_ceil(m, block.rows)), kernels.row_step);
  block.columns = round_up(div_ceil(n, div_ceil(n, block.columns)), kernels.column_step);
  return block;
}

}  // namespace

const Bf16Kernels& bf16_kernels_of(InstructionSet level) {
  // Intel's processors start a BF16 dot product every other cycle, on one port: half the rate of FP32 multiply-adds.
  static const KernelTable<const Bf16Kernels*> kernels = {
      .portable = &bf16_portable,
      NIBBLE_ON_X86(.avx2 = &bf16_avx2, .avx512 = &bf16_avx512,
                    .avx512_bf16 = __builtin_cpu_is("intel") ? nullptr : &bf16_avx512_bf16)};
  return *kernels.at(level);
}

void bf16_gemm_with(const Bf16Kernels& kernels, const GemmProblem& problem) {
  const QuantizedTensor& a = problem.a;
  const QuantizedTensor& b = problem.b;
  check_gemm(problem);
  Bf16GemmBlock whole{};
  whole.a = as_operand(a);
  whole.b = as_operand(b);
  whole.inner = a.inner;
  whole.output = problem.output.data();
  whole.output_dtype = problem.output.dtype();
  whole.output_stride = b.rows;
  whole.alpha = std::ldexp(1.0F, -(a.rotation_bits + b.rotation_bits) / 2);
  whole.accumulate = problem.accumulate;
  if (a.rows == 0 || b.rows == 0) return;

  for_each_block(whole, a.rows, b.rows, choose_block(kernels, a.rows, b.rows), [&](const Bf16GemmBlock& block) {
    const FlushSubnormals flush;
    kernels.gemm_block(block, thread_scratch(kernels.scratch_bytes));
  });
}

}  // namespace nibble::cpu
