// Compares operands of one row each, made and multiplied together, with rows that are made and multiplied alone.
#include "quant/quantize/quantize_rows.h"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "dist/device/thread_pool.h"
#include "quant/gemm/gemm.h"
#include "tests/quant/every_spec.h"

namespace nibble::test {
namespace {

constexpr int64_t rows = 37;
constexpr int64_t inner = 256;
constexpr int64_t columns = 24;

// Operands, scales of rows, scratch and results of one way to multiply.
struct Product {
  Arena arena{"test"};
  QuantizedTensor storage;
  Tensor row_scales, scratch, output;

  Product(const OperandSpec& spec, const Matrix& x, const OperandSpec& weight_spec, DType dtype) {
    const OperandLayout layout = gemm_layout(spec, weight_spec);
    Arena* const arenas[] = {&arena};
    planned(arenas, [&] {
      storage = allocate_operand(arena, spec, DType::bf16, round_up<int64_t>(x.rows, 16), x.cols, layout);
      row_scales = allocate_tensor(arena, DType::f32, {x.rows, 2});
      scratch = allocate_gemm_scratch(
          arena,
          {.a = spec.format, .b = weight_spec.format, .m = x.rows, .n = columns, .k = x.cols, .row_scales = true});
      output = allocate_tensor(arena, dtype, {x.rows, columns});
    });
  }
};

std::vector<uint8_t> bytes_of(const Tensor& tensor) {
  const auto* const data = static_cast<const uint8_t*>(tensor.data());
  return {data, data + tensor.bytes()};
}

std::vector<uint8_t> together(const OperandSpec& spec, const Matrix& x, const Operand& weight, DType dtype) {
  Product product(spec, x, {.format = weight.tensor.format}, dtype);
  const QuantizedTensor a =
      quantize_rows({.source = x.bf16(), .spec = spec}, rows_of(product.storage, 0, x.rows), product.row_scales);
  gemm({.a = a, .b = weight.tensor, .output = product.output, .scratch = product.scratch});
  return bytes_of(product.output);
}

std::vector<uint8_t> alone(OperandSpec spec, const Matrix& x, const Operand& weight, DType dtype) {
  Product product(spec, x, {.format = weight.tensor.format}, dtype);
  spec.block = BlockShape::row;
  for (int64_t row = 0; row < x.rows; ++row) {
    const QuantizedTensor a =
        quantize({.source = x.bf16().slice(row, row + 1), .spec = spec}, rows_of(product.storage, 0, 1));
    gemm({.a = a, .b = weight.tensor, .output = product.output.slice(row, row + 1), .scratch = product.scratch});
  }
  return bytes_of(product.output);
}

std::vector<OperandSpec> specs_without_noise() {
  std::vector<OperandSpec> specs = {{.format = Format::bf16}, {.format = Format::f32}};
  for (const OperandSpec& rule : every_rule()) {
    for (const OperandSpec& spec : every_rotation_of(rule)) {
      if (!has_rounding_noise(spec) && inner % inner_multiple(spec) == 0) specs.push_back(spec);
    }
  }
  return specs;
}

Operand weight_of(const OperandSpec& spec, OperandLayout layout) {
  static const Matrix values = normal_matrix(columns, inner, 5);
  OperandSpec weight = spec;
  weight.block = BlockShape::row;
  return quantized({.source = values.bf16(), .spec = weight}, layout);
}

TEST(QuantizeRows, RowsTogetherAreRowsAlone) {
  const Matrix x = uneven_matrix(rows, inner);
  for (const int threads : {1, 3}) {
    set_compute_threads(threads);
    for (const OperandSpec& spec : specs_without_noise()) {
      const Operand weight = weight_of(spec, gemm_layout(spec, spec));
      for (const DType dtype : {DType::f32, DType::bf16}) {
        EXPECT_EQ(together(spec, x, weight, dtype), alone(spec, x, weight, dtype)) << describe(spec);
      }
    }
  }
  set_compute_threads(1);
}

// The comparison above can fail: one scale for the tensor gives other bits.
TEST(QuantizeRows, OneScaleForAllRowsDiffers) {
  const Matrix x = uneven_matrix(rows, inner);
  const OperandSpec spec{.format = Format::nvfp4};
  const Operand weight = weight_of(spec, OperandLayout::tiles);
  Product product(spec, x, spec, DType::f32);
  const QuantizedTensor a = quantize({.source = x.bf16(), .spec = spec}, rows_of(product.storage, 0, rows));
  gemm({.a = a, .b = weight.tensor, .output = product.output});
  EXPECT_NE(bytes_of(product.output), alone(spec, x, weight, DType::f32));
}

TEST(QuantizeRows, ARowThatIsNotFiniteIsNaNAndIsCounted) {
  std::vector<float> values = normal_matrix(rows, inner, 3).values;
  values[5 * inner + 7] = std::numeric_limits<float>::infinity();
  const Matrix x(rows, inner, values);
  const OperandSpec spec{.format = Format::nvfp4};
  Product product(spec, x, spec, DType::f32);
  const QuantizeProblem problem{.source = x.bf16(), .spec = spec};
  const QuantizedTensor a = quantize_rows(problem, rows_of(product.storage, 0, rows), product.row_scales);
  EXPECT_FALSE(source_was_finite(a));
  int64_t count = 0;
  record_operand(problem, a, {.non_finite = Tensor(&count, DType::i64, {1})});
  EXPECT_EQ(count, 1);
  const float* const scales = product.row_scales.as<float>();
  for (int64_t row = 0; row < rows; ++row) EXPECT_EQ(scales[2 * row] != scales[2 * row], row == 5) << row;
}

TEST(QuantizeRows, RoundingNoiseIsMadeRowByRow) {
  const Matrix x = normal_matrix(2, inner, 3);
  EXPECT_FALSE(
      can_quantize_rows({.source = x.bf16(), .spec = {.format = Format::nvfp4, .round = Rounding::stochastic}}));
  EXPECT_TRUE(can_quantize_rows({.source = x.bf16(), .spec = {.format = Format::nvfp4}}));
}

}  // namespace
}  // namespace nibble::test
