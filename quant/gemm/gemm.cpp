#include "quant/gemm/gemm.h"

#include <algorithm>
#include <cmath>

#include "dist/base/error.h"
#include "dist/device/device.h"
#include "dist/device/dispatch.h"
#include "dist/device/profile.h"
#include "dist/device/thread_pool.h"
#include "quant/format/codec.h"
#include "quant/format/output_scale.h"
#include "quant/gemm/cpu/bf16_gemm.h"
#include "quant/gemm/cpu/gemm_codes.h"
#include "quant/gemm/cpu/gemm_kernels.h"
#include "quant/gemm/cuda/gemm_rules.h"
#include "quant/gemm/gemm_common.h"
#include "quant/isa/instruction_set.h"
#include "quant/isa/kernel_table.h"
#include "quant/isa/thread_scratch.h"

namespace nibble {
namespace cpu {
namespace {

void check_shape(const Tensor& tensor, DType dtype, int64_t rows, int64_t cols, const char* what) {
  NIBBLE_CHECK(tensor.dtype() == dtype && tensor.rank() == 2 && tensor.size(0) == rows && tensor.size(1) == cols, what);
}

GemmOperand as_plain_operand(const QuantizedTensor& tensor) {
  const DType dtype = tensor.format == Format::bf16 ? DType::bf16 : DType::f32;
  if (tensor.transposed) {
    check_shape(tensor.values, dtype, tensor.inner, tensor.rows, "transposed operand [inner, rows]");
    return {tensor.values.data(), tensor.format, tensor.rows, 1, tensor.rows};
  }
  check_shape(tensor.values, dtype, tensor.rows, tensor.inner, "operand [rows, inner]");
  return {tensor.values.data(), tensor.format, tensor.rows, tensor.inner, 1};
}

GemmOperand as_operand(const QuantizedTensor& tensor) {
  if (!is_quantized(tensor.format)) return as_plain_operand(tensor);
  const FormatTraits traits = traits_of(tensor.format);
  const int64_t row_bytes = tensor.inner * traits.code_bits / 8;
  NIBBLE_CHECK(!tensor.transposed, "quantised operands lie along the inner axis");
  NIBBLE_CHECK(tensor.layout == OperandLayout::rows, "tiles multiply nvfp4 operands only");
  check_shape(tensor.values, DType::u8, tensor.rows, row_bytes, "codes [rows, bytes of a row]");
  GemmOperand operand{tensor.values.data(), tensor.format, tensor.rows, row_bytes, 1};
  if (traits.block != 0) {
    NIBBLE_CHECK(tensor.inner % traits.block == 0, "operand in whole blocks");
    operand.scale_stride = tensor.inner / traits.block;
    check_shape(tensor.block_scales, DType::u8, tensor.rows, operand.scale_stride, "block scales [rows, inner/block]");
    operand.block_scales = tensor.block_scales.as<uint8_t>();
  }
  if (!tensor.outer_scales.empty()) {
    NIBBLE_CHECK(tensor.format == Format::nvfp4 && tensor.inner % outer_block == 0, "outer scales are nvfp4's");
    operand.outer_stride = tensor.inner / outer_block;
    check_shape(tensor.outer_scales, DType::f32, tensor.rows, operand.outer_stride, "outer scales [rows, inner/128]");
    operand.outer_scales = tensor.outer_scales.as<float>();
  }
  return operand;
}

bool has_integer_blocks(const QuantizedTensor& tensor) {
  return tensor.format == Format::nvfp4 && tensor.outer_scales.empty();
}

// Returns the product of the tensor scales times the power of two that rotations and doubled integers leave.
double output_scale(const QuantizedTensor& a, const QuantizedTensor& b, bool integer_blocks) {
  for (const QuantizedTensor* tensor : {&a, &b}) {
    NIBBLE_CHECK(!is_quantized(tensor->format) ||
                     (tensor->tensor_scale.dtype() == DType::f32 && tensor->tensor_scale.elements() >= 1),
                 "tensor scale");
  }
  const int rotation_bits = a.rotation_bits + b.rotation_bits;
  const float g_a = is_quantized(a.format) ? a.tensor_scale.as<float>()[0] : 1.0F;
  const float g_b = is_quantized(b.format) ? b.tensor_scale.as<float>()[0] : 1.0F;
  return nibble::output_scale(g_a, g_b, -(rotation_bits / 2) - (integer_blocks ? 2 : 0));
}

// Chooses the block of a thread: halves the largest one until every thread has several.
BlockExtent choose_block(const GemmKernels& kernels, int64_t m, int64_t n) {
  BlockExtent block{std::min(kernels.block_rows, round_up(m, kernels.row_step)),
                    std::min(kernels.block_columns, round_up(n, kernels.column_step))};
  const int64_t wanted = compute_threads() == 1 ? 1 : 4 * compute_threads();
  while (div_ceil(m, block.rows) * div_ceil(n, block.columns) < wanted) {
    if (block.rows >= block.columns && block.rows > kernels.row_step) {
      block.rows = round_up(block.rows / 2, kernels.row_step);
    } else if (block.columns > 2 * kernels.column_step) {
      block.columns = round_up(block.columns / 2, kernels.column_step);
    } else {
      break;
    }
  }
  return block;
}

// Computes the GEMM of two operands of any format from their decoded values.
void plain_gemm(const GemmKernels& kernels, const GemmProblem& problem, double alpha) {
  const QuantizedTensor& a = problem.a;
  const QuantizedTensor& b = problem.b;
  GemmBlock whole{};
  whole.a = as_operand(a);
  whole.b = as_operand(b);
  whole.inner = a.inner;
  whole.output = problem.output.data();
  whole.output_dtype = problem.output.dtype();
  whole.output_stride = b.rows;
  whole.alpha = alpha;
  whole.accumulate = problem.accumulate;
  if (a.rows == 0 || b.rows == 0) return;

  for_each_block(whole, a.rows, b.rows, choose_block(kernels, a.rows, b.rows),
                 [&](const GemmBlock& block) { kernels.gemm_block(block, thread_scratch(kernels.scratch_bytes)); });
}

// Multiplies the codes and block scales of all rows first, which leaves sums that are exact but for their roundings,
// and then each row by its scale.
void gemm_of_scaled_rows(InstructionSet level, const GemmProblem& problem) {
  static float one[2] = {1, 1};
  const Tensor unit(one, DType::f32, {2});
  const int64_t m = problem.a.rows;
  const int64_t n = problem.b.rows;
  const Tensor& output = problem.output;
  NIBBLE_CHECK(!problem.accumulate && problem.a.tensor_scale.elements() == 2 * m, "one scale for each row");
  const bool in_place = output.dtype() == DType::f32;
  NIBBLE_CHECK(in_place || problem.scratch.bytes() >= static_cast<size_t>(m * n) * sizeof(float), "scratch of a GEMM");
  GemmProblem product = problem;
  product.a.tensor_scale = unit;
  if (is_quantized(product.b.format)) product.b.tensor_scale = unit;
  product.output = in_place ? output : Tensor(problem.scratch.data(), DType::f32, {m, n});
  gemm_with(level, product);
  const float* const row_scales = problem.a.tensor_scale.as<float>();
  const float* const sums = product.output.as<float>();
  const float column_scale = is_quantized(problem.b.format) ? problem.b.tensor_scale.as<float>()[0] : 1.0F;
  parallel_for(static_cast<size_t>(m), 4, [&](size_t begin, size_t end) {
    for (auto row = static_cast<int64_t>(begin); row < static_cast<int64_t>(end); ++row) {
      const double alpha = nibble::output_scale(row_scales[2 * row], column_scale, 0);
      for (int64_t i = row * n; i < (row + 1) * n; ++i) {
        const float value = scaled_once(sums[i], alpha);
        if (in_place) {
          output.as<float>()[i] = value;
        } else {
          output.as<BFloat16>()[i] = bf16_nearest(value);
        }
      }
    }
  });
}

}  // namespace

const GemmKernels& gemm_kernels_of(InstructionSet level) {
  static constexpr KernelTable<const GemmKernels*> kernels = {
      .portable = &gemm_portable, NIBBLE_ON_X86(.avx2 = &gemm_avx2, .avx512 = &gemm_avx512)};
  return *kernels.at(level);
}

void gemm_with(InstructionSet level, const GemmProblem& problem) {
  if (problem.a.format == Format::bf16 && problem.b.format == Format::bf16) {
    return bf16_gemm_with(bf16_kernels_of(level), problem);
  }
  const QuantizedTensor& a = problem.a;
  const QuantizedTensor& b = problem.b;
  check_gemm(problem);
  if (has_row_scales(a)) return gemm_of_scaled_rows(level, problem);
  const bool integer_blocks = has_integer_blocks(a) && has_integer_blocks(b);
  const double alpha = output_scale(a, b, integer_blocks);
  if (integer_blocks) return code_gemm(level, problem, alpha);
  plain_gemm(gemm_kernels_of(level), problem, alpha);
}

void gemm(const GemmProblem& problem) {
  gemm_with(instruction_set(), problem);
}

GemmDescription describe_gemm(const GemmProblem& /*problem*/) {
  return {.library = "nibble", .algorithm = "exact, " + std::string(name_of(instruction_set())), .exact = true};
}

void small_matmul_with(InstructionSet level, const SmallMatmul& problem) {
  const GemmKernels& kernels = gemm_kernels_of(level);
  if (problem.m <= 0 || problem.n <= 0) return;
  kernels.small_matmul(problem, thread_scratch(kernels.scratch_bytes));
}

static size_t gemm_scratch_bytes(const GemmShape& shape) {
  return shape.row_scales ? static_cast<size_t>(shape.m * shape.n) * sizeof(float) : 0;
}

}  // namespace cpu

namespace {

OperatorFamily family_of(const GemmProblem& problem) {
  if (problem.a.format != problem.b.format) return OperatorFamily::gemm_other;
  if (problem.a.format == Format::nvfp4) return OperatorFamily::gemm_nvfp4;
  return problem.a.format == Format::bf16 ? OperatorFamily::gemm_bf16 : OperatorFamily::gemm_other;
}

}  // namespace

size_t gemm_scratch_bytes(const GemmShape& shape, DeviceKind device) {
  if (device == DeviceKind::cuda && described_gpu()) return cuda::described_scratch_bytes(shape, *described_gpu());
  return NIBBLE_DISPATCH(device, gemm_scratch_bytes, shape);
}

Tensor allocate_gemm_scratch(Arena& arena, const GemmShape& shape) {
  const size_t bytes = gemm_scratch_bytes(shape, arena.device());
  return bytes == 0 ? Tensor() : allocate_tensor(arena, DType::u8, {static_cast<int64_t>(bytes)});
}

void gemm(const GemmProblem& problem) {
  const ProfileScope scope(family_of(problem), "gemm");
  NIBBLE_DISPATCH(problem.output.device(), gemm, problem);
}

GemmDescription describe_gemm(const GemmProblem& problem) {
  return NIBBLE_DISPATCH(problem.output.device(), describe_gemm, problem);
}

void small_matmul(const SmallMatmul& problem) {
  cpu::small_matmul_with(instruction_set(), problem);
}

}  // namespace nibble
