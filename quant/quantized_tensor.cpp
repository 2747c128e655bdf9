#include "quant/quantized_tensor.h"

#include <fmt/format.h>

#include "dist/error.h"

namespace nibble {
namespace {

void check_blocks(const OperandSpec& spec, int64_t rows, int64_t inner) {
  if (inner % 16 != 0) {
    throw Error(ExitCode::bad_config,
                fmt::format("nvfp4 operand [{}, {}]: the inner axis is not a multiple of 16", rows, inner),
                "choose model sizes and tokens a micro-batch that are multiples of 16");
  }
  if (spec.block == BlockShape::block_16x16 && rows % 16 != 0) {
    throw Error(ExitCode::bad_config,
                fmt::format("nvfp4 operand [{}, {}]: the rows are not a multiple of 16", rows, inner),
                "choose a model whose sizes are multiples of 16, or block: 1x16");
  }
}

DType dtype_of(Format format) {
  return format == Format::f32 ? DType::f32 : DType::bf16;
}

}  // namespace

QuantizedTensor allocate_operand(Arena& arena, const OperandSpec& spec, DType source, int64_t rows, int64_t inner) {
  check_supported(spec, fmt::format("operand [{}, {}]", rows, inner));
  NIBBLE_CHECK(rows >= 0 && inner >= 0, "operand shape");
  NIBBLE_CHECK(source == DType::f32 || source == DType::bf16, "operands are made from f32 or bf16");
  QuantizedTensor operand;
  operand.format = spec.format;
  operand.rows = rows;
  operand.inner = inner;
  if (spec.format == Format::nvfp4) {
    check_blocks(spec, rows, inner);
    operand.values = allocate_tensor(arena, DType::u8, {rows, inner / 2});
    operand.block_scales = allocate_tensor(arena, DType::u8, {rows, inner / 16});
    operand.tensor_scale = allocate_tensor(arena, DType::f32, {2});
  } else if (dtype_of(spec.format) != source) {
    operand.values = allocate_tensor(arena, dtype_of(spec.format), {rows, inner});
  }
  return operand;
}

}  // namespace nibble
