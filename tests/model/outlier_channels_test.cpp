// Tests outlier retention in a linear layer: every product is the sum of the products of the two parts of its operands,
// as the quantiser makes them.
#include "model/layers/outlier_channels.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "model/linear_fixture.h"

namespace nibble::test {
namespace {

constexpr LayerShape shape{.tokens = 64, .in = 128, .out = 32};
constexpr OutlierRule rule{.share = 0.1};  // 13 channels, so 32
const std::vector<int32_t> channels = [] {
  std::vector<int32_t> result;
  for (int32_t i = 0; i < 32; ++i) result.push_back(3 * i + i % 3 + (i > 20 ? 20 : 0));
  return result;
}();

// Returns the channels' columns of a matrix with 128 columns, gathered.
std::vector<float> gathered(const std::vector<float>& matrix) {
  std::vector<float> part;
  for (size_t row = 0; row < matrix.size(); row += 128) {
    for (const int32_t channel : channels) part.push_back(matrix[row + static_cast<size_t>(channel)]);
  }
  return part;
}
// Returns the matrix with zeros in the channels' columns.
std::vector<float> without(std::vector<float> matrix) {
  for (size_t row = 0; row < matrix.size(); row += 128) {
    for (const int32_t channel : channels) matrix[row + static_cast<size_t>(channel)] = 0;
  }
  return matrix;
}
template <class T>
void put(const std::vector<T>& part, std::vector<T>& matrix) {
  for (size_t i = 0; i < part.size(); ++i) matrix[i / 32 * 128 + static_cast<size_t>(channels[i % 32])] = part[i];
}
std::vector<double> sum(std::vector<double> a, const std::vector<double>& b) {
  for (size_t i = 0; i < a.size(); ++i) a[i] += b[i];
  return a;
}

NoiseStream noise(Purpose purpose, uint32_t micro_batch) {
  return {.seed = 5, .step = 3, .micro_batch = micro_batch, .tensor_id = 0, .purpose = purpose};
}
OperandSpec plain_spec(OperandSpec spec) {
  spec.from = Source::original;
  return spec;
}
const OperandSpec eight = plain_operand(rule.format);

struct Products {
  std::vector<double> y, dx, dw;
};
// Returns the products of a recipe whose operands all have four bits.
Products reference(const LinearRecipe& recipe, const std::vector<float>& x, const Layer& layer) {
  const auto [tokens, in, out] = shape;
  Products result;
  const std::vector<float> x4 =
      values_of(recipe.forward_x, without(x), {tokens, in}, false, noise(Purpose::forward_x, 9));
  const std::vector<float> w4 =
      values_of(recipe.forward_w, without(layer.w), {out, in}, false, noise(Purpose::forward_w, 0));
  const std::vector<float> x8 = values_of(eight, gathered(x), {tokens, 32}, false, {});
  const std::vector<float> w8 = values_of(eight, gathered(layer.w), {out, 32}, false, {});
  result.y = sum(product(x4, w4, in), product(x8, w8, 32));

  std::vector<float> w_source = layer.w;
  if (recipe.grad_input_w.from == Source::saved) {
    w_source = w4;
    put(w8, w_source);
  }
  result.dx = product(
      values_of(recipe.grad_input_dy, layer.dy, {tokens, out}, false, noise(Purpose::grad_input_dy, 9)),
      values_of(plain_spec(recipe.grad_input_w), w_source, {out, in}, true, noise(Purpose::grad_input_w, 0)), out);

  const bool saved = recipe.grad_weight_x.from == Source::saved;
  result.dw =
      product(values_of(recipe.grad_weight_dy, layer.dy, {tokens, out}, true, noise(Purpose::grad_weight_dy, 9)),
              values_of(plain_spec(recipe.grad_weight_x), saved ? without(x4) : without(x), {tokens, in}, true,
                        noise(Purpose::grad_weight_x, 9)),
              tokens);
  // The four-bit product has only zeros in these columns.
  put(product(values_of(eight, layer.dy, {tokens, out}, true, {}),
              values_of(eight, saved ? x8 : gathered(x), {tokens, 32}, true, {}), tokens),
      result.dw);
  return result;
}

void check(const LinearRecipe& recipe) {
  Layer layer(recipe, shape, rule);
  ASSERT_EQ(layer.linear->outlier_count(), 32);
  layer.linear->set_outlier_channels(channels);
  const std::vector<float> x = layer.x;
  const Products expected = reference(recipe, x, layer);
  layer.run();
  expect_close(layer.y, expected.y, 128, "y");
  expect_close(layer.dx, expected.dx, 128, "dx");
  expect_close(layer.grad_w, expected.dw, 128, "dw");

  // The layer runs again with BF16 output, and without any output for backward alone.
  Layer again(recipe, shape, rule);
  again.linear->set_outlier_channels(channels);
  std::vector<BFloat16> rounded(again.y.size());
  const Tensor y = tensor_of(std::span(rounded), {shape.tokens, shape.out});
  again.linear->forward({again.x_view(), y, layer_context, false});
  for (size_t i = 0; i < rounded.size(); ++i) ASSERT_EQ(to_float(rounded[i]), to_float(bf16_nearest(layer.y[i]))) << i;
  again.linear->forward({again.x_view(), Tensor(), layer_context, true});
  again.backward();
  EXPECT_TRUE(same_bits(again.dx, layer.dx));
  EXPECT_TRUE(same_bits(again.grad_w, layer.grad_w));
}

LinearRecipe rows_recipe() {
  LinearRecipe recipe = nvidia().linear;
  recipe.forward_w.block = BlockShape::row;
  recipe.grad_input_w = {.format = Format::nvfp4};
  return recipe;
}

TEST(OutlierChannels, OperandsFromTheOriginals) {
  check(nvidia().linear);
  check(rows_recipe());
}

TEST(OutlierChannels, BackwardOperandsFromForwardOnes) {
  LinearRecipe recipe = rows_recipe();
  recipe.grad_input_w.from = Source::saved;
  recipe.grad_weight_x.from = Source::saved;
  check(recipe);
  recipe.grad_input_w.round = Rounding::stochastic;
  recipe.grad_weight_x.round = Rounding::stochastic;
  check(recipe);
}

// Only one product is in four bits and split; the other one has all channels, from the source that its recipe names.
TEST(OutlierChannels, OneProductSplit) {
  const auto [tokens, in, out] = shape;
  LinearRecipe forward_only = rows_recipe();
  forward_only.grad_weight_dy = {.format = Format::f32};
  forward_only.grad_weight_x = {.format = Format::f32, .from = Source::saved};
  Layer layer(forward_only, shape, rule);
  layer.linear->set_outlier_channels(channels);
  std::vector<float> x =
      values_of(forward_only.forward_x, without(layer.x), {tokens, in}, false, noise(Purpose::forward_x, 9));
  put(values_of(eight, gathered(layer.x), {tokens, 32}, false, {}), x);
  layer.run();
  expect_close(layer.grad_w,
               product(values_of(forward_only.grad_weight_dy, layer.dy, {tokens, out}, true, {}),
                       values_of(plain_operand(Format::f32), x, {tokens, in}, true, {}), tokens),
               128, "dw");

  LinearRecipe backward_only = rows_recipe();
  backward_only.forward_x = backward_only.forward_w = {.format = Format::f32};
  Layer other(backward_only, shape, rule);
  other.linear->set_outlier_channels(channels);
  const Products expected = reference(backward_only, other.x, other);
  const std::vector<double> y = product(other.x, other.w, in);
  other.run();
  expect_close(other.y, y, 128, "y");
  expect_close(other.grad_w, expected.dw, 128, "dw");
}

TEST(OutlierChannels, NothingIsSplitBeforeTheChoice) {
  Layer plain(rows_recipe(), shape);
  Layer waiting(rows_recipe(), shape, rule);
  plain.run();
  waiting.run();
  EXPECT_TRUE(same_bits(waiting.y, plain.y));
  EXPECT_TRUE(same_bits(waiting.dx, plain.dx));
  EXPECT_TRUE(same_bits(waiting.grad_w, plain.grad_w));
}

TEST(OutlierChannels, LayersWithFewChannelsOrOtherFormatsAreLeftAlone) {
  EXPECT_EQ(OutlierChannels::count(rule, 64), 0);
  EXPECT_EQ(OutlierChannels::count(rule, 80), 32);
  EXPECT_EQ(OutlierChannels::count(rule, 320), 32);
  EXPECT_EQ(OutlierChannels::count(rule, 336), 64);
  EXPECT_EQ(OutlierChannels::count({.share = 0.45}, 1024), 480);
  EXPECT_EQ(OutlierChannels::count({.share = 0.49}, 1024), 0);
  EXPECT_EQ(Layer(plain_recipe(Format::bf16), shape, rule).linear->outlier_count(), 0);
  EXPECT_EQ(Layer(plain_recipe(Format::mxfp8_e4m3), shape, rule).linear->outlier_count(), 0);
  EXPECT_EQ(Layer(rows_recipe(), {.tokens = 64, .in = 64, .out = 32}, rule).linear->outlier_count(), 0);
}

TEST(OutlierChannels, NormsAreThoseOfTheMicroBatchesThatAreKept) {
  Layer layer(rows_recipe(), shape, rule);
  std::vector<float> norms(128, 0.5F);
  layer.linear->set_channel_norms(tensor_of(std::span(norms), {128}));
  layer.linear->forward({layer.x_view(), layer.y_view(), layer_context, false});
  EXPECT_EQ(norms, std::vector<float>(128, 0.5F));
  layer.forward();
  for (size_t c = 0; c < 128; ++c) {
    double squares = 0;
    for (size_t t = 0; t < 64; ++t) squares += std::pow(static_cast<double>(layer.x[t * 128 + c]), 2);
    EXPECT_EQ(norms[c], 0.5F + static_cast<float>(squares)) << c;
  }
  layer.linear->set_channel_norms({});
  const std::vector<float> before = norms;
  layer.forward();
  EXPECT_EQ(norms, before);
}

TEST(OutlierChannels, WhatIsNotFiniteInThemIsCounted) {
  for (const bool in_weight : {false, true}) {
    Layer layer(rows_recipe(), shape, rule);
    layer.linear->set_outlier_channels(channels);
    std::vector<float>& spoilt = in_weight ? layer.w : layer.x;
    spoilt[128 + static_cast<size_t>(channels[5])] = std::numeric_limits<float>::infinity();
    layer.forward();
    EXPECT_GT(layer.non_finite, 0) << in_weight;
  }
}

}  // namespace
}  // namespace nibble::test
