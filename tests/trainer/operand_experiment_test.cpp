// An operand made in the laboratory has the bits of the operand that a linear layer would have made.
#include "trainer/lab/operand_experiment.h"

#include <gtest/gtest.h>

#include <functional>

#include "dist/base/error.h"
#include "tests/quant/operand_fixture.h"

namespace nibble::test {
namespace {

constexpr OperandContext context{.seed = 12, .step = 34, .micro_batch = 5, .tensor_id = 6};

std::vector<uint8_t> bytes_of(const Tensor& tensor) {
  return std::vector<uint8_t>(tensor.as<uint8_t>(), tensor.as<uint8_t>() + tensor.bytes());
}

OperandSpec eden(Signs signs, Source from) {
  return {.format = Format::nvfp4, .round = Rounding::ms_eden, .rotate = 128, .signs = signs, .from = from};
}

QuantizeProblem problem_of(OperandRole role, const OperandSpec& spec, const Tensor& source, bool transpose) {
  QuantizeProblem problem;
  problem.source = source;
  problem.transpose = transpose;
  problem.spec = spec;
  problem.spec.from = Source::original;
  const OperandStreams streams = operand_streams(role, problem.spec, context);
  problem.noise = streams.noise;
  problem.signs = streams.signs;
  return problem;
}

void expect_same(const OperandResult& actual, const Operand& expected) {
  EXPECT_TRUE(bytes_of(actual.operand.values) == expected.codes());
  EXPECT_TRUE(bytes_of(actual.operand.block_scales) == expected.scales());
  EXPECT_EQ(actual.operand.tensor_scale.as<float>()[0], expected.decode_scale());
}

LinearRecipe noisy_recipe() {
  const OperandSpec forward{.format = Format::nvfp4, .scale = ScaleRule::four_over_six, .round = Rounding::stochastic};
  LinearRecipe recipe{forward,
                      forward,
                      eden(Signs::step, Source::original),
                      eden(Signs::step, Source::saved),
                      eden(Signs::micro_batch, Source::original),
                      eden(Signs::micro_batch, Source::saved)};
  recipe.grad_weight_dy.rotations = recipe.grad_weight_x.rotations = 2;
  return recipe;
}

TEST(OperandExperiment, UsesTheRandomBitsOfALayer) {
  const Matrix matrix = normal_matrix(128, 256, 1);
  const LinearRecipe recipe = noisy_recipe();
  for (const OperandRole role : all_operand_roles) {
    const OperandSpec& spec = spec_of(recipe, role);
    if (spec.from == Source::saved) continue;
    for (const bool transpose : {false, true}) {
      SCOPED_TRACE(name_of(role));
      const OperandResult made = make_operand(
          {.recipe = recipe, .role = role, .context = context, .input = matrix.bf16(), .transpose = transpose});
      const QuantizeProblem problem = problem_of(role, spec, matrix.bf16(), transpose);
      const Operand expected = quantized(problem);
      expect_same(made, expected);
      EXPECT_EQ(made.statistics.error_squares, measure(problem, expected.tensor).error_squares);
      EXPECT_FALSE(made.forward || made.from_input);
    }
  }
}

TEST(OperandExperiment, SavedOperandsGoThroughForward) {
  const LinearRecipe recipe = noisy_recipe();
  for (const bool weight : {false, true}) {
    const OperandRole role = weight ? OperandRole::grad_input_w : OperandRole::grad_weight_x;
    const OperandRole forward_role = weight ? OperandRole::forward_w : OperandRole::forward_x;
    const Matrix forward_matrix = normal_matrix(128, 256, 2);  // in the shape of the forward operand
    const Operand forward =
        quantized(problem_of(forward_role, spec_of(recipe, forward_role), forward_matrix.bf16(), false));
    const Matrix saved(128, 256, forward.decoded());
    const Operand expected = quantized(problem_of(role, spec_of(recipe, role), saved.f32(), true));
    const Matrix input = forward_matrix.transposed();
    for (const bool transpose : {false, true}) {
      SCOPED_TRACE(testing::Message() << name_of(role) << (transpose ? " transposed" : ""));
      const Tensor source = transpose ? forward_matrix.bf16() : input.bf16();
      const OperandResult made =
          make_operand({.recipe = recipe, .role = role, .context = context, .input = source, .transpose = transpose});
      expect_same(made, expected);
      EXPECT_EQ(*made.forward, spec_of(recipe, forward_role));
      // The errors of two independent roundings add up.
      const double forward_error =
          measure(problem_of(forward_role, *made.forward, forward_matrix.bf16(), false), forward.tensor)
              .relative_error();
      EXPECT_NEAR(made.from_input->relative_error(), made.statistics.relative_error() + forward_error,
                  0.1 * forward_error);
    }
  }
}

TEST(OperandExperiment, AnFp32OperandOfSavedValuesOutlivesThem) {
  LinearRecipe recipe = noisy_recipe();
  recipe.grad_weight_x = {.format = Format::f32, .from = Source::saved};
  const Matrix matrix = normal_matrix(32, 16, 3);
  const OperandResult made =
      make_operand({.recipe = recipe, .role = OperandRole::grad_weight_x, .context = context, .input = matrix.f32()});
  const Operand forward =
      quantized(problem_of(OperandRole::forward_x, recipe.forward_x, matrix.f32(), /*transpose=*/true));
  const OperandValues values = operand_values(made.operand);
  const Matrix expected = Matrix(16, 32, forward.decoded()).transposed();
  for (size_t i = 0; i < expected.values.size(); ++i) EXPECT_EQ(values.tensor.as<float>()[i], expected.values[i]);
  EXPECT_EQ(made.statistics.error_squares, 0);
}

TEST(OperandExperiment, RefusesWhatALayerRefuses) {
  const Matrix matrix = normal_matrix(128, 128, 4);
  const auto refusal = [&](const std::function<void(LinearRecipe&)>& change, OperandRole role) {
    LinearRecipe recipe = noisy_recipe();
    change(recipe);
    try {
      make_operand({.recipe = recipe, .role = role, .context = context, .input = matrix.bf16()});
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::bad_config) << error.what();
      return std::string(error.what());
    }
    return std::string("not refused");
  };
  const auto rotated_forward = [](LinearRecipe& recipe) { recipe.forward_x.rotate = 16; };
  EXPECT_NE(refusal(rotated_forward, OperandRole::grad_weight_x).find("rotated"), std::string::npos);
  const auto saved_gradient = [](LinearRecipe& recipe) { recipe.grad_input_dy.from = Source::saved; };
  EXPECT_NE(refusal(saved_gradient, OperandRole::grad_input_dy).find("no forward operand"), std::string::npos);
}

}  // namespace
}  // namespace nibble::test
