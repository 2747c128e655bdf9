#include "trainer/lab/gradient_bias.h"

#include <gtest/gtest.h>

#include <cmath>

namespace nibble {
namespace {

TEST(GradientBias, SlopeOfAPowerLaw) {
  const std::vector<uint64_t> draws = {1, 4, 16, 64};
  const auto power = [&](double exponent) {
    std::vector<double> error;
    for (const uint64_t b : draws) error.push_back(3 * std::pow(static_cast<double>(b), exponent));
    return error;
  };
  EXPECT_NEAR(log_slope(draws, power(-1)), -1, 1e-12);
  EXPECT_NEAR(log_slope(draws, power(0)), 0, 1e-12);
  EXPECT_NEAR(log_slope(draws, power(-0.5)), -0.5, 1e-12);
}

TEST(GradientBias, SlopeNeedsTwoPoints) {
  EXPECT_EQ(log_slope({1, 4}, {0.5}), 0);
  EXPECT_EQ(log_slope({1, 4}, {0.5, 0.0}), 0);
  EXPECT_EQ(log_slope({4}, {0.5}), 0);
}

TEST(GradientBias, TheReferenceKeepsTheForwardPassAndTheSources) {
  const OperandSpec four_bits{.format = Format::nvfp4};
  Recipe recipe;
  recipe.linear = {four_bits, four_bits, four_bits, four_bits, four_bits, four_bits};
  recipe.linear.grad_weight_x.from = Source::saved;
  recipe.layers.push_back({.layers = {.match = "head"}, .linear = recipe.linear});
  const Recipe reference = unquantized_backward(recipe);
  EXPECT_EQ(reference.linear.forward_x, recipe.linear.forward_x);
  EXPECT_EQ(reference.linear.forward_w, recipe.linear.forward_w);
  EXPECT_EQ(reference.linear.grad_input_dy, OperandSpec{.format = Format::f32});
  EXPECT_EQ(reference.linear.grad_input_w, OperandSpec{.format = Format::f32});
  EXPECT_EQ(reference.linear.grad_weight_x, (OperandSpec{.format = Format::f32, .from = Source::saved}));
  EXPECT_EQ(reference.layers[0].linear, reference.linear);
}

TEST(GradientBias, AWeightInSquareBlocksIsTheForwardWeight) {
  const OperandSpec square{.format = Format::nvfp4, .block = BlockShape::square};
  Recipe recipe;
  recipe.linear.forward_w = recipe.linear.grad_input_w = square;
  EXPECT_EQ(unquantized_backward(recipe).linear.grad_input_w.from, Source::saved);
  recipe.linear.grad_input_w.scale = ScaleRule::four_over_six;
  EXPECT_EQ(unquantized_backward(recipe).linear.grad_input_w.from, Source::original);
}

}  // namespace
}  // namespace nibble
