#include "quant/tensor/quantized_tensor.h"

#include <fmt/format.h>

#include <bit>

#include "dist/base/error.h"
#include "quant/format/hadamard.h"
#include "quant/format/swizzle.h"
#include "quant/format/tile.h"

namespace nibble {
namespace {

DType dtype_of(Format format) {
  return format == Format::f32 ? DType::f32 : DType::bf16;
}

}  // namespace

QuantizedTensor rows_of(QuantizedTensor operand, int64_t begin, int64_t end) {
  operand.rows = end - begin;
  if (operand.layout == OperandLayout::tiles) {
    NIBBLE_CHECK(begin % tile_rows == 0, "operands in tiles are cut between tiles");
    begin /= tile_rows;
    end = div_ceil(end, tile_rows);
  }
  if (operand.layout == OperandLayout::swizzled) {
    NIBBLE_CHECK(begin % swizzle_rows == 0, "operands with swizzled scales are cut between their cells");
    operand.values = operand.values.slice(begin, end);
    operand.block_scales = operand.block_scales.slice(begin / swizzle_rows, div_ceil(end, swizzle_rows));
    if (!operand.outer_scales.empty()) operand.outer_scales = operand.outer_scales.slice(begin, end);
    return operand;
  }
  for (Tensor* part : {&operand.values, &operand.block_scales, &operand.outer_scales}) {
    if (!part->empty()) *part = part->slice(begin, end);
  }
  return operand;
}

QuantizedTensor allocate_operand(Arena& arena, const OperandSpec& spec, DType source, int64_t rows, int64_t inner,
                                 OperandLayout layout) {
  const std::string where = fmt::format("operand [{}, {}]", rows, inner);
  check_supported(spec, where);
  check_shape(spec, rows, inner, where);
  NIBBLE_CHECK(rows >= 0 && inner >= 0, "operand shape");
  NIBBLE_CHECK(source == DType::f32 || source == DType::bf16, "operands are made from f32 or bf16");
  QuantizedTensor operand;
  operand.format = spec.format;
  operand.rows = rows;
  operand.inner = inner;
  if (!is_quantized(spec.format)) {
    if (dtype_of(spec.format) != source) {
      operand.values = allocate_tensor(arena, dtype_of(spec.format), {rows, inner});
    }
    return operand;
  }
  const FormatTraits traits = traits_of(spec.format);
  if (arena.device() == DeviceKind::cuda) layout = traits.block != 0 ? OperandLayout::swizzled : OperandLayout::rows;
  NIBBLE_CHECK(layout != OperandLayout::tiles || fits_tiles(spec), "tiles are for nvfp4 without outer scales");
  operand.layout = layout;
  const int64_t height = layout == OperandLayout::tiles ? tile_rows : 1;  // operand rows in a row of the tensors
  const int64_t strips = div_ceil(rows, height);
  operand.values = allocate_tensor(arena, DType::u8, {strips, height * inner * traits.code_bits / 8});
  if (layout == OperandLayout::swizzled) {
    NIBBLE_CHECK(traits.block != 0, "a format without block scales has none to swizzle");
    const int64_t strip = swizzled_scale_bytes(swizzle_rows, inner / traits.block);
    operand.block_scales = allocate_tensor(arena, DType::u8, {div_ceil(rows, swizzle_rows), strip});
  } else if (traits.block != 0) {
    operand.block_scales = allocate_tensor(arena, DType::u8, {strips, height * (inner / traits.block)});
  }
  if (spec.outer == OuterScale::row_128) operand.outer_scales = allocate_tensor(arena, DType::f32, {rows, inner / 128});
  operand.tensor_scale = allocate_tensor(arena, DType::f32, {2});
  if (spec.rotate > hadamard_points) {
    operand.rotation_bits = spec.rotations * std::countr_zero(static_cast<unsigned>(spec.rotate));
  }
  return operand;
}

}  // namespace nibble
