#include "quant/quantize/quantize_problem.h"

#include "dist/base/error.h"
#include "quant/format/swizzle.h"
#include "quant/format/tile.h"

namespace nibble {
namespace {

bool is_format_of(DType dtype, Format format) {
  return (dtype == DType::f32 && format == Format::f32) || (dtype == DType::bf16 && format == Format::bf16);
}

int64_t block_scale_bytes(OperandLayout layout, const OperandShape& shape, int block) {
  const int64_t blocks = shape.inner / block;
  switch (layout) {
    case OperandLayout::rows: return shape.rows * blocks;
    case OperandLayout::tiles: return round_up<int64_t>(shape.rows, tile_rows) * blocks;
    case OperandLayout::swizzled: return swizzled_scale_bytes(shape.rows, blocks);
  }
  return 0;
}

}  // namespace

OperandShape operand_shape(const QuantizeProblem& problem) {
  const int64_t cols = problem.source.cols();
  const int64_t rows = cols == 0 ? 0 : problem.source.rows();
  return problem.transpose ? OperandShape{cols, rows} : OperandShape{rows, cols};
}

void check_source(const QuantizeProblem& problem, const QuantizedTensor& storage) {
  NIBBLE_CHECK(problem.source.dtype() == DType::f32 || problem.source.dtype() == DType::bf16, "source dtype");
  NIBBLE_CHECK(storage.format == problem.spec.format, "storage of another format");
}

void check_storage(const QuantizeProblem& problem, const QuantizedTensor& storage) {
  const OperandSpec& spec = problem.spec;
  const FormatTraits traits = traits_of(spec.format);
  const OperandShape shape = operand_shape(problem);
  const bool tiles = storage.layout == OperandLayout::tiles;
  const int64_t elements = (tiles ? round_up<int64_t>(shape.rows, tile_rows) : shape.rows) * shape.inner;
  NIBBLE_CHECK(storage.rows == shape.rows && storage.inner == shape.inner, "storage of another shape");
  NIBBLE_CHECK(shape.inner % inner_multiple(spec) == 0, "blocks and rotations divide the inner axis");
  NIBBLE_CHECK(spec.block == BlockShape::row || shape.rows % 16 == 0, "square blocks divide the rows");
  NIBBLE_CHECK(storage.values.elements() * 8 == elements * traits.code_bits, "storage of another format");
  NIBBLE_CHECK(
      traits.block == 0 || storage.block_scales.elements() == block_scale_bytes(storage.layout, shape, traits.block),
      "block scales");
  NIBBLE_CHECK((spec.outer == OuterScale::row_128) == !storage.outer_scales.empty(), "outer scales");
  NIBBLE_CHECK(elements / 16 < int64_t{1} << 39, "too many blocks for one noise stream");
  NIBBLE_CHECK(problem.scratch.empty() || problem.scratch.dtype() == DType::f32, "scratch is f32");
  NIBBLE_CHECK(problem.amax == 0 || traits.block == 0, "only formats without block scales know delayed scaling");
  NIBBLE_CHECK((problem.scratch.empty() ? 0 : problem.scratch.elements()) >=
                   quantize_scratch_floats(spec, shape.rows, shape.inner),
               "scratch is too small");
}

void check_pair(const QuantizePairProblem& problem) {
  check_source(problem.rows, problem.rows_storage);
  check_source(problem.columns, problem.columns_storage);
  NIBBLE_CHECK(problem.rows.source.data() == problem.columns.source.data() && !problem.rows.transpose &&
                   problem.columns.transpose,
               "a pair is made from one source, the second operand transposed");
}

bool needs_amax_pass(const QuantizeProblem& problem) {
  const FormatTraits traits = traits_of(problem.spec.format);
  if (traits.block_scale == ScaleCode::e8m0 || problem.spec.outer == OuterScale::row_128) return false;
  return problem.amax == 0 && !corrects_post_hoc(problem.spec);
}

float largest_for_scale(const OperandSpec& spec) {
  if (corrects_post_hoc(spec)) return ceiling_of(spec);
  const FormatTraits traits = traits_of(spec.format);
  return traits.block == 0 ? traits.largest : largest_of_tensor(spec);
}

TensorScale fixed_tensor_scale(const OperandSpec& spec) {
  return {1.0f, spec.round == Rounding::stochastic ? 4.0f / 3.0f : 1.0f};
}

bool decodes_on_load(const QuantizeProblem& problem, const QuantizedTensor& saved) {
  return is_quantized(problem.spec.format) && saved.format == Format::nvfp4 && saved.outer_scales.empty() &&
         saved.rotation_bits == 0;
}

bool set_plain_operand(const QuantizeProblem& problem, const QuantizedTensor& storage, QuantizedTensor& operand) {
  operand = storage;
  operand.transposed = problem.transpose;
  const int64_t rows = problem.transpose ? operand.inner : operand.rows;
  const int64_t cols = problem.transpose ? operand.rows : operand.inner;
  if (is_format_of(problem.source.dtype(), problem.spec.format)) {
    operand.values = problem.source.reshape({rows, cols});
    return false;
  }
  NIBBLE_CHECK(is_format_of(storage.values.dtype(), problem.spec.format), "storage of another format");
  operand.values = storage.values.reshape({rows, cols});
  return true;
}

}  // namespace nibble
