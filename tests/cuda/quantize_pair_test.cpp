// Checks that quantize_pair() on the device has the bits of two calls of quantize() on the CPU.
#include "cuda/quantize_fixture.h"

namespace nibble::test {
namespace {

class QuantizePairOnDevice : public DeviceTest {};

::testing::AssertionResult same_pair(const OperandSpec& rows_spec, const OperandSpec& columns_spec,
                                     const TwinMatrix& matrix, DType dtype) {
  QuantizeProblem columns_problem = problem_of(columns_spec, true);
  columns_problem.noise = noise_stream(Purpose::grad_input_dy);
  columns_problem.signs.gemm = 1;
  Twins rows(problem_of(rows_spec), matrix, dtype);
  Twins columns(columns_problem, matrix, dtype);
  rows.cpu = quantize(rows.cpu_problem, rows.cpu_memory.storage());
  columns.cpu = quantize(columns.cpu_problem, columns.cpu_memory.storage());
  const QuantizedPair pair = quantize_pair({.rows = rows.gpu_problem,
                                            .columns = columns.gpu_problem,
                                            .rows_storage = rows.gpu_memory.storage(),
                                            .columns_storage = columns.gpu_memory.storage()});
  const std::string both =
      describe(rows_spec) + " and " + describe(columns_spec) + " of " + std::string(name_of(dtype));
  if (const auto same = same_operand(rows.cpu, pair.rows); !same) {
    return ::testing::AssertionFailure() << both << ", rows: " << same.message();
  }
  if (const auto same = same_operand(columns.cpu, pair.columns); !same) {
    return ::testing::AssertionFailure() << both << ", columns: " << same.message();
  }
  return ::testing::AssertionSuccess();
}

OperandSpec with_scale(OperandSpec spec, ScaleRule scale) {
  spec.scale = scale;
  return spec;
}
OperandSpec eden(EdenCorrection correction, int rotate) {
  OperandSpec spec = nvfp4(BlockShape::row, Rounding::ms_eden, rotate);
  spec.correction = correction;
  spec.signs = rotate == 0 ? Signs::fixed : Signs::micro_batch;
  return spec;
}

// Returns a spec for every kind of kernel, and those that the recipes make pairs of.
std::vector<OperandSpec> kinds() {
  return {nvfp4(),
          nvfp4(BlockShape::row, Rounding::nearest, 16),
          with_scale(nvfp4(), ScaleRule::four_over_six),
          nvfp4(BlockShape::row, Rounding::stochastic),
          nvfp4(BlockShape::row, Rounding::stochastic, 16),
          nvfp4(BlockShape::row, Rounding::stochastic_published, 16),
          nvfp4(BlockShape::square),
          with_scale(nvfp4(BlockShape::square), ScaleRule::four_over_six),
          eden(EdenCorrection::post_hoc, 128),
          eden(EdenCorrection::per_128, 128),
          {.format = Format::mxfp8_e4m3, .scale = ScaleRule::amax_up},
          {.format = Format::mxfp4, .round = Rounding::stochastic, .rotate = 32},
          {.format = Format::fp8_e5m2}};
}

TEST_F(QuantizePairOnDevice, EveryTwoKinds) {
  const TwinMatrix matrix(uneven_matrix(128, 256));
  size_t turn = 0;
  for (const OperandSpec& rows : kinds()) {
    for (const OperandSpec& columns : kinds()) {
      EXPECT_TRUE(same_pair(rows, columns, matrix, turn++ % 2 == 0 ? DType::bf16 : DType::f32));
    }
  }
}

TEST_F(QuantizePairOnDevice, RaggedShapes) {
  for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{32, 160}, {160, 32}, {144, 144}}) {
    const TwinMatrix matrix(uneven_matrix(rows, cols));
    for (const OperandSpec& spec : kinds()) {
      if (!fits(spec, rows, cols) || !fits(spec, cols, rows)) continue;
      EXPECT_TRUE(same_pair(spec, spec, matrix, DType::bf16));
      EXPECT_TRUE(same_pair(spec, nvfp4(), matrix, DType::f32));
    }
  }
}

TEST_F(QuantizePairOnDevice, OneOfThemPlain) {
  const TwinMatrix matrix(uneven_matrix(64, 48));
  for (const DType dtype : {DType::f32, DType::bf16}) {
    EXPECT_TRUE(same_pair({.format = Format::bf16}, nvfp4(), matrix, dtype));
    EXPECT_TRUE(same_pair(nvfp4(), {.format = Format::bf16}, matrix, dtype));
  }
}

// Weights in square blocks decode to the same values in both orientations.
TEST_F(QuantizePairOnDevice, SquareBlocksAgree) {
  const TwinMatrix matrix(uneven_matrix(32, 48));
  for (const ScaleRule scale : {ScaleRule::amax, ScaleRule::four_over_six, ScaleRule::search}) {
    const OperandSpec spec = with_scale(nvfp4(BlockShape::square), scale);
    Twins rows(problem_of(spec), matrix, DType::bf16);
    Twins columns(problem_of(spec, true), matrix, DType::bf16);
    const QuantizedPair pair = quantize_pair({.rows = rows.gpu_problem,
                                              .columns = columns.gpu_problem,
                                              .rows_storage = rows.gpu_memory.storage(),
                                              .columns_storage = columns.gpu_memory.storage()});
    const HostOperand a(pair.rows);
    const HostOperand b(pair.columns);
    std::vector<float> of_rows(32 * 48);
    std::vector<float> of_columns(32 * 48);
    dequantize(a.operand(), tensor_of(std::span(of_rows), {32, 48}));
    dequantize(b.operand(), tensor_of(std::span(of_columns), {48, 32}));
    for (size_t i = 0; i < of_rows.size(); ++i) {
      ASSERT_EQ(bits_of(of_rows[i]), bits_of(of_columns[i % 48 * 32 + i / 48])) << i;
    }
  }
}

}  // namespace
}  // namespace nibble::test
