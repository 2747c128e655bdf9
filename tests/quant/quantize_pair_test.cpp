// Checks that the quantiser's results depend on nothing but its problem: not on threads, nor on the operand that is
// made beside it.
#include <gtest/gtest.h>

#include "dist/device/thread_pool.h"
#include "tests/quant/every_spec.h"

namespace nibble::test {
namespace {

const NoiseStream row_noise{0x1234567890ABCDEF, 77, 5, 19, Purpose::grad_input_dy};
const NoiseStream column_noise{0x1234567890ABCDEF, 77, 5, 19, Purpose::grad_weight_dy};
const SignStream row_signs{{7, 77, 5, 19, Purpose::hadamard_signs}, 1};
const SignStream column_signs{{7, 77, 5, 19, Purpose::hadamard_signs}, 2};

QuantizeProblem rows_of(const Tensor& source, const OperandSpec& spec) {
  return {source, false, spec, row_noise, row_signs};
}
QuantizeProblem columns_of(const Tensor& source, const OperandSpec& spec) {
  return {source, true, spec, column_noise, column_signs};
}

struct Pair {
  std::unique_ptr<Arena> arena;
  Operand rows, columns;
};

Pair quantized_pair(const Tensor& source, const OperandSpec& row_spec, const OperandSpec& column_spec) {
  Pair pair{std::make_unique<Arena>("pair"), {}, {}};
  QuantizePairProblem problem{rows_of(source, row_spec), columns_of(source, column_spec), {}, {}};
  for (int pass = 0; pass < 2; ++pass) {
    for (const bool transpose : {false, true}) {
      QuantizeProblem& operand = transpose ? problem.columns : problem.rows;
      const int64_t rows = transpose ? source.cols() : source.rows();
      const int64_t inner = transpose ? source.rows() : source.cols();
      (transpose ? problem.columns_storage : problem.rows_storage) =
          allocate_operand(*pair.arena, operand.spec, source.dtype(), rows, inner);
      const int64_t scratch = quantize_scratch_floats(operand.spec, rows, inner);
      if (scratch > 0) operand.scratch = allocate_tensor(*pair.arena, DType::f32, {scratch});
    }
    if (pass == 0) pair.arena->commit();
  }
  const QuantizedPair made = quantize_pair(problem);
  pair.rows.tensor = made.rows;
  pair.columns.tensor = made.columns;
  return pair;
}

void expect_same(const Operand& made, const Operand& expected) {
  ASSERT_EQ(made.tensor.format, expected.tensor.format);
  ASSERT_EQ(made.tensor.transposed, expected.tensor.transposed);
  ASSERT_EQ(made.tensor.rotation_bits, expected.tensor.rotation_bits);
  if (!is_quantized(expected.tensor.format)) {
    EXPECT_TRUE(made.decoded() == expected.decoded());
    return;
  }
  EXPECT_EQ(made.amax(), expected.amax());
  EXPECT_EQ(made.decode_scale(), expected.decode_scale());
  EXPECT_TRUE(made.codes() == expected.codes());
  EXPECT_TRUE(made.scales() == expected.scales());
  EXPECT_TRUE(made.outer() == expected.outer());
}

// Returns a spec for every way of reading the source: with and without a pass for the amax, rotated or not, whole row
// blocks or blocks.
std::vector<OperandSpec> representative_specs() {
  std::vector<OperandSpec> specs = every_rule();
  for (const Format format : {Format::bf16, Format::f32}) specs.push_back({.format = format});
  const auto add = [&](OperandSpec spec, int points, int rotations, Signs signs) {
    spec.rotate = points;
    spec.rotations = rotations;
    spec.signs = signs;
    specs.push_back(spec);
  };
  add(nvfp4(BlockShape::row, Rounding::stochastic_published), 16, 1, Signs::fixed);
  add(nvfp4(), 16, 1, Signs::fixed);
  add(nvfp4(BlockShape::row, Rounding::ms_eden), 128, 1, Signs::micro_batch);
  add(nvfp4(BlockShape::row, Rounding::ms_eden), 128, 2, Signs::step);
  add(nvfp4(BlockShape::row, Rounding::stochastic), 32, 1, Signs::fixed);
  add({.format = Format::mxfp4, .round = Rounding::stochastic}, 32, 1, Signs::micro_batch);
  add({.format = Format::fp8_e5m2}, 64, 2, Signs::fixed);
  return specs;
}

void expect_pairs_equal_singles(const Matrix& matrix, bool f32) {
  const Tensor source = f32 ? matrix.f32() : matrix.bf16();
  std::vector<OperandSpec> row_specs, column_specs;
  std::vector<Operand> rows, columns;
  for (const OperandSpec& spec : representative_specs()) {
    if (fits(spec, matrix.rows, matrix.cols)) {
      row_specs.push_back(spec);
      rows.push_back(quantized(rows_of(source, spec)));
    }
    if (fits(spec, matrix.cols, matrix.rows)) {
      column_specs.push_back(spec);
      columns.push_back(quantized(columns_of(source, spec)));
    }
  }
  ASSERT_GT(row_specs.size() * column_specs.size(), 50u);
  for (size_t r = 0; r < row_specs.size(); ++r) {
    for (size_t c = 0; c < column_specs.size(); ++c) {
      SCOPED_TRACE(testing::Message() << describe(row_specs[r]) << " with " << describe(column_specs[c]));
      const Pair pair = quantized_pair(source, row_specs[r], column_specs[c]);
      expect_same(pair.rows, rows[r]);
      expect_same(pair.columns, columns[c]);
      if (testing::Test::HasFailure()) return;
    }
  }
}

TEST(QuantizePair, EqualsTwoCallsForAllCombinations) {
  expect_pairs_equal_singles(uneven_matrix(128, 128), false);
  expect_pairs_equal_singles(uneven_matrix(256, 128), true);
}

TEST(QuantizePair, EqualsTwoCallsOnTilesThatAreNotWhole) {
  expect_pairs_equal_singles(uneven_matrix(160, 96), true);
  expect_pairs_equal_singles(uneven_matrix(32, 400), false);
}

TEST(QuantizePair, ReportsNonFiniteSourcesInBoth) {
  std::vector<float> values = normal_matrix(128, 128, 5).values;
  values[4321] = std::numeric_limits<float>::quiet_NaN();
  const Matrix matrix(128, 128, values);
  for (const OperandSpec& spec : representative_specs()) {
    if (!is_quantized(spec.format)) continue;
    for (const OperandSpec& other : {nvfp4(), nvfp4(BlockShape::row, Rounding::ms_eden, 128)}) {
      const Pair pair = quantized_pair(matrix.bf16(), spec, other);
      ASSERT_FALSE(source_was_finite(pair.rows.tensor)) << describe(spec);
      ASSERT_FALSE(source_was_finite(pair.columns.tensor)) << describe(spec);
    }
  }
}

TEST(QuantizePair, SameBytesForAnyNumberOfThreads) {
  const Matrix matrix = uneven_matrix(256, 16 * 128 + 128);  // more than one range of either operand
  const OperandSpec eden = nvfp4(BlockShape::row, Rounding::ms_eden, 128);
  for (const OperandSpec& spec : representative_specs()) {
    set_compute_threads(1);
    const Operand row = quantized(rows_of(matrix.f32(), spec));
    const Operand column = quantized(columns_of(matrix.f32(), spec));
    const Operand eden_column = quantized(columns_of(matrix.f32(), eden));
    for (const int threads : {2, 4}) {
      SCOPED_TRACE(testing::Message() << describe(spec) << ", " << threads << " threads");
      set_compute_threads(threads);
      expect_same(quantized(rows_of(matrix.f32(), spec)), row);
      expect_same(quantized(columns_of(matrix.f32(), spec)), column);
      const Pair pair = quantized_pair(matrix.f32(), spec, eden);
      expect_same(pair.rows, row);
      expect_same(pair.columns, eden_column);
    }
  }
  set_compute_threads(1);
}

}  // namespace
}  // namespace nibble::test
