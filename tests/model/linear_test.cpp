// Tests the linear layer alone: its three GEMMs are exactly the products of the operands that the recipe describes.
#include "model/layers/linear.h"

#include <gtest/gtest.h>

#include "model/linear_fixture.h"

namespace nibble::test {
namespace {

constexpr int64_t tokens = 48;
constexpr int64_t in = 64;
constexpr int64_t out = 32;

void check(const LinearRecipe& recipe) {
  Layer layer(recipe, {tokens, in, out});
  const std::vector<float> x = layer.x;
  layer.run();

  const auto noise = [](Purpose purpose, uint32_t micro_batch) {
    return NoiseStream{.seed = 5, .step = 3, .micro_batch = micro_batch, .tensor_id = 0, .purpose = purpose};
  };
  const auto made_from = [](const OperandSpec& spec, const std::vector<float>& original,
                            const std::vector<float>& forward) {
    return spec.from == Source::saved ? forward : original;
  };
  const auto plain_spec = [](OperandSpec spec) {
    spec.from = Source::original;
    return spec;
  };
  const std::vector<float> forward_x =
      values_of(recipe.forward_x, x, {tokens, in}, false, noise(Purpose::forward_x, 9));
  const std::vector<float> forward_w =
      values_of(recipe.forward_w, layer.w, {out, in}, false, noise(Purpose::forward_w, 0));
  expect_close(layer.y, product(forward_x, forward_w, in), 64, "y");

  const std::vector<float> dy_rows =
      values_of(recipe.grad_input_dy, layer.dy, {tokens, out}, false, noise(Purpose::grad_input_dy, 9));
  const std::vector<float> w_columns =
      values_of(plain_spec(recipe.grad_input_w), made_from(recipe.grad_input_w, layer.w, forward_w), {out, in}, true,
                noise(Purpose::grad_input_w, 0));
  expect_close(layer.dx, product(dy_rows, w_columns, out), 64, "dx");

  const std::vector<float> dy_columns =
      values_of(recipe.grad_weight_dy, layer.dy, {tokens, out}, true, noise(Purpose::grad_weight_dy, 9));
  const std::vector<float> x_columns =
      values_of(plain_spec(recipe.grad_weight_x), made_from(recipe.grad_weight_x, x, forward_x), {tokens, in}, true,
                noise(Purpose::grad_weight_x, 9));
  expect_close(layer.grad_w, product(dy_columns, x_columns, tokens), 64, "dw");
}

TEST(Linear, Plain) {
  check(plain_recipe(Format::f32));
  check(plain_recipe(Format::bf16));
}

TEST(Linear, Nvidia) {
  check(nvidia().linear);
}

TEST(Linear, NoiseOnEveryOperand) {
  const OperandSpec noisy{.format = Format::nvfp4, .round = Rounding::stochastic};
  check({noisy, noisy, noisy, noisy, noisy, noisy});
}

TEST(Linear, BackwardOperandsFromForwardOnes) {
  LinearRecipe recipe = nvidia().linear;
  recipe.forward_w.block = BlockShape::row;
  recipe.grad_input_w = {.format = Format::nvfp4, .from = Source::saved};
  recipe.grad_weight_x.from = Source::saved;
  check(recipe);
  // These operands are read back without being quantised again.
  recipe.grad_input_w.format = Format::f32;
  recipe.grad_weight_x = {.format = Format::bf16, .from = Source::saved};
  recipe.grad_weight_dy = {.format = Format::nvfp4};
  check(recipe);
  recipe.grad_weight_x.format = Format::f32;
  check(recipe);
}

TEST(Linear, KeepsItsInputOnlyWhereBackwardReadsIt) {
  const auto keeps = [](const LinearRecipe& recipe, DType dtype) {
    return Linear(LinearDescription{"layer", 0, in, out, dtype, recipe}).keeps_input();
  };
  EXPECT_TRUE(keeps(plain_recipe(Format::bf16), DType::bf16));
  EXPECT_TRUE(keeps(plain_recipe(Format::f32), DType::f32));
  EXPECT_FALSE(keeps(plain_recipe(Format::bf16), DType::f32));
  EXPECT_FALSE(keeps(nvidia().linear, DType::bf16));
  LinearRecipe forward_only = nvidia().linear;
  forward_only.grad_weight_dy = forward_only.grad_weight_x = {.format = Format::bf16};
  EXPECT_TRUE(keeps(forward_only, DType::bf16));
  forward_only.grad_weight_x.from = Source::saved;
  EXPECT_FALSE(keeps(forward_only, DType::bf16));
}

// An operand has 4.5 bits an element and orientation; the weights' arena also holds the count of non-finite values.
TEST(Linear, MemoryOfQuantisedOperands) {
  const Layer layer(nvidia().linear, {tokens, in, out});
  const auto operand = [](size_t elements) {
    return round_up(elements / 2, Arena::alignment) + round_up(elements / 16, Arena::alignment) + Arena::alignment;
  };
  EXPECT_EQ(layer.weight_arena.planned_bytes(), 2 * operand(in * out));
  EXPECT_EQ(layer.saved_arena.planned_bytes(), operand(in * tokens));
  // Backward holds both operands of dY.
  EXPECT_EQ(layer.workspace_arena.planned_bytes(), std::max(operand(in * tokens), 2 * operand(out * tokens)));
}

TEST(Linear, RefusesRecipesThatCannotBeFollowed) {
  const auto code_of = [](const LinearRecipe& recipe) {
    try {
      Linear(LinearDescription{"layer", 0, in, out, DType::bf16, recipe});
    } catch (const Error& error) {
      EXPECT_FALSE(error.remedy().empty());
      return error.code();
    }
    return ExitCode::ok;
  };
  LinearRecipe recipe = nvidia().linear;
  EXPECT_EQ(code_of(recipe), ExitCode::ok);
  recipe.grad_weight_x.rotate = 0;
  EXPECT_EQ(code_of(recipe), ExitCode::bad_config);
  recipe = nvidia().linear;
  recipe.grad_weight_dy.from = Source::saved;
  EXPECT_EQ(code_of(recipe), ExitCode::bad_config);
  recipe = nvidia().linear;
  recipe.forward_x.rotate = recipe.forward_w.rotate = 16;
  recipe.forward_w.block = BlockShape::row;
  EXPECT_EQ(code_of(recipe), ExitCode::ok);
  recipe.grad_weight_x.from = Source::saved;
  EXPECT_EQ(code_of(recipe), ExitCode::bad_config);
}

}  // namespace
}  // namespace nibble::test
