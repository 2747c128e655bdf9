#include "quant/gemm/cpu/gemm_codes.h"

#include <limits>

#include "dist/base/error.h"
#include "dist/device/thread_pool.h"
#include "quant/format/tile.h"
#include "quant/gemm/gemm_common.h"
#include "quant/gemm/gemm_problem.h"
#include "quant/isa/kernel_table.h"
#include "quant/isa/thread_scratch.h"

namespace nibble::cpu {
namespace {

constexpr int64_t largest_side = 512;  // rows or columns of a block

CodeOperand as_code_operand(const QuantizedTensor& tensor) {
  const bool tiles = tensor.layout == OperandLayout::tiles;
  const int64_t lines = tiles ? div_ceil(tensor.rows, tile_rows) : tensor.rows;
  CodeOperand operand{};
  operand.rows = tensor.rows;
  operand.tiles = tiles;
  operand.code_stride = tensor.inner / 2 * (tiles ? tile_rows : 1);
  operand.scale_stride = tensor.inner / tile_positions * (tiles ? tile_rows : 1);
  const auto check = [&](const Tensor& part, int64_t stride) {
    NIBBLE_CHECK(part.dtype() == DType::u8 && part.rank() == 2 && part.size(0) == lines && part.size(1) == stride,
                 "codes and scales of an nvfp4 operand");
  };
  NIBBLE_CHECK(!tensor.transposed && tensor.inner % tile_positions == 0, "operand in whole blocks");
  check(tensor.values, operand.code_stride);
  check(tensor.block_scales, operand.scale_stride);
  operand.codes = tensor.values.as<uint8_t>();
  operand.scales = tensor.block_scales.as<uint8_t>();
  return operand;
}

// Returns whether stores shall go past the caches: an output that no cache keeps until it is read had better not be
// fetched into one, which a partial store would do.
bool goes_past_caches(const Tensor& output, bool accumulate) {
  constexpr size_t kept = size_t{1} << 20;
  constexpr size_t line = 64;
  const size_t row_bytes = output.bytes() / static_cast<size_t>(output.size(0));
  return !accumulate && output.bytes() >= kept && row_bytes % line == 0 &&
         reinterpret_cast<uintptr_t>(output.data()) % line == 0;
}

// Returns the size of the pieces when `whole` is cut into `parts` nearly equal ones, each a multiple of step.
int64_t piece(int64_t whole, int64_t parts, int64_t step) {
  return round_up(div_ceil(whole, parts), step);
}

}  // namespace

const CodeKernels& code_kernels_of(InstructionSet level) {
  static constexpr KernelTable<const CodeKernels*> kernels = {
      .portable = &code_kernels_portable,
      NIBBLE_ON_X86(.avx2 = &code_kernels_avx2, .avx512 = &code_kernels_avx512,
                    .avx512_vnni = &code_kernels_avx512_vnni)};
  return *kernels.at(level);
}

// Every block unpacks its own rows and columns, which is cheap for large blocks. But all threads should end together,
// and one that other programs hold up should not hold up the rest for long.
CodeBlockShape choose_code_block(const CodeKernels& kernels, int64_t m, int64_t n, int threads) {
  constexpr double lost_at_the_end = 0.25;  // blocks
  CodeBlockShape best{kernels.row_step, kernels.column_step};
  double least = std::numeric_limits<double>::infinity();
  for (int64_t down = div_ceil(m, largest_side); down <= div_ceil(m, kernels.row_step); down = down * 5 / 4 + 1) {
    const int64_t rows = piece(m, down, kernels.row_step);
    for (int64_t across = div_ceil(n, largest_side); across <= div_ceil(n, kernels.column_step);
         across = across * 5 / 4 + 1) {
      const int64_t columns = piece(n, across, kernels.column_step);
      const int64_t blocks = div_ceil(m, rows) * div_ceil(n, columns);
      const double tile_rows_here = static_cast<double>(rows) / tile_rows;
      const double tile_columns_here = static_cast<double>(columns) / tile_rows;
      const double work =
          tile_rows_here * tile_columns_here + kernels.unpacking_cost * (tile_rows_here + tile_columns_here);
      const double rounds =
          static_cast<double>(div_ceil(blocks, int64_t{threads})) + (threads > 1 ? lost_at_the_end : 0.0);
      if (rounds * work < least) {
        least = rounds * work;
        best = {rows, columns};
      }
    }
  }
  return best;
}

void code_gemm(InstructionSet level, const GemmProblem& problem, double alpha) {
  const CodeKernels& kernels = code_kernels_of(level);
  const int64_t m = problem.a.rows;
  const int64_t n = problem.b.rows;
  CodeBlock whole{};
  whole.a = as_code_operand(problem.a);
  whole.b = as_code_operand(problem.b);
  whole.blocks = problem.a.inner / tile_positions;
  whole.output = problem.output.data();
  whole.output_dtype = problem.output.dtype();
  whole.output_stride = n;
  whole.alpha = alpha;
  whole.accumulate = problem.accumulate;
  if (m == 0 || n == 0) return;
  whole.past_caches = goes_past_caches(problem.output, problem.accumulate);
  const CodeBlockShape shape = choose_code_block(kernels, m, n, compute_threads());
  for_each_block(whole, m, n, {shape.rows, shape.columns}, [&](const CodeBlock& block) {
    kernels.multiply(block, thread_scratch(kernels.scratch_bytes(block)));
  });
}

}  // namespace nibble::cpu
