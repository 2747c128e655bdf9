// Compares BF16 and NVFP4 with the FP32 model of the same weights: how much quantisation may cost, and that every rule
// of a recipe reaches the layer that it names.
#include <gtest/gtest.h>

#include <bit>
#include <limits>
#include <map>

#include "model/model_fixture.h"

namespace nibble::test {
namespace {

constexpr StepContext context{.seed = 7, .step = 4, .micro_batch = 2};

ModelConfig config_of(DType dtype) {
  ModelConfig config = tiny_config();
  config.hidden_size = 64;
  config.intermediate_size = 160;
  config.sequence_length = 64;
  config.init_std = 0.1;
  config.dtype = dtype;
  return config;
}

constexpr int64_t tokens = 128;

struct Comparison {
  double loss_difference;  // nats a token
  double cosine;           // of all gradients
  double worst_cosine;     // the lowest of one parameter's gradient
};

Comparison compare_with_f32(DType dtype, const Recipe& recipe) {
  const LanguageModelOptions options{.sequences = 2, .sequence_length = 64};
  TestModel exact(config_of(DType::f32), plain(Format::f32), options);
  TestModel test(config_of(dtype), recipe, options);
  Comparison result{};
  result.loss_difference = (test.forward_backward(context) - exact.forward_backward(context)) / tokens;
  result.cosine = cosine(test.gradients, exact.gradients);
  result.worst_cosine = 1;
  for (const Parameter& parameter : test.model.parameters().parameters()) {
    const double one = cosine(part(test.gradients, parameter), part(exact.gradients, parameter));
    result.worst_cosine = std::min(result.worst_cosine, one);
  }
  EXPECT_EQ(test.model.take_non_finite_count(), 0);
  return result;
}

// A BF16 rounding is off by 2^-9 * 0.6 of an element on average, and some twenty roundings lie between a weight and the
// loss: 0.005 of the gradient, hence a cosine of 1 - 0.005^2 / 2. The logits, about 1, are off by 0.005 too, and their
// mean over 128 tokens by 0.0005; the bound is four times that.
TEST(LowPrecision, Bf16IsCloseToFp32) {
  const Comparison result = compare_with_f32(DType::bf16, plain(Format::bf16));
  EXPECT_NEAR(result.loss_difference, 0, 2e-3);
  EXPECT_GT(result.cosine, 0.9999);
  EXPECT_GT(result.worst_cosine, 0.9995);
}

// Relative squared errors of the operands are 0.009 for x, 0.012 for 16x16 weights and 0.024 for stochastic gradients.
// Through each of eight layers, forward adds 0.021 and backward at most 0.036 (the residual stream passes unchanged),
// and the weight gradient itself adds 0.033: 0.49 in all, hence a cosine above 1 / sqrt(1.49) = 0.82 for the whole and
// a little less for the worst parameter. Errors e of the logits, about 1, raise the loss by e^2 / 2 < 8 * 0.021 / 2.
TEST(LowPrecision, Nvfp4IsCloseToFp32) {
  for (DType dtype : {DType::bf16, DType::f32}) {
    const Comparison result = compare_with_f32(dtype, nvidia());
    EXPECT_NEAR(result.loss_difference, 0, 0.08) << name_of(dtype);
    EXPECT_GT(result.cosine, 0.82) << name_of(dtype);
    EXPECT_GT(result.worst_cosine, 0.75) << name_of(dtype);
  }
}

std::map<std::string, std::string> layers(const Recipe& recipe) {
  const LanguageModel model(config_of(DType::bf16), recipe, {.sequence_length = 64});
  std::map<std::string, std::string> result;
  for (const Linear* linear : model.linears()) result[linear->name()] = linear->describe();
  return result;
}

const std::string all_nvfp4 = "forward nvfp4, grad_input nvfp4, grad_weight nvfp4";
const std::string all_bf16 = "forward bf16, grad_input bf16, grad_weight bf16";

TEST(LowPrecision, EveryRuleReachesItsLayers) {
  Recipe recipe = nvidia();
  std::map<std::string, std::string> lines = layers(recipe);
  EXPECT_EQ(lines.size(), 9U);
  for (const auto& [name, line] : lines) EXPECT_EQ(line, name == "head.weight" ? all_bf16 : all_nvfp4) << name;

  recipe.high_precision.push_back({.layers = {.last_blocks = 1}});
  lines = layers(recipe);
  EXPECT_EQ(lines["blocks.2.attention.qkv.weight"], all_nvfp4);
  EXPECT_EQ(lines["blocks.3.mlp.gate_up.weight"], all_bf16);
  EXPECT_EQ(lines["blocks.3.mlp.down.weight"], all_bf16);

  recipe.high_precision = {{.layers = {.match = "attention.output|head"}},
                           {.layers = {.first_blocks = 2}, .format = Format::f32}};
  lines = layers(recipe);
  EXPECT_EQ(lines["blocks.0.attention.output.weight"], all_bf16);
  EXPECT_EQ(lines["blocks.0.attention.qkv.weight"], "forward fp32, grad_input fp32, grad_weight fp32");
  EXPECT_EQ(lines["blocks.1.mlp.down.weight"], "forward fp32, grad_input fp32, grad_weight fp32");
  EXPECT_EQ(lines["blocks.2.attention.output.weight"], all_bf16);
  EXPECT_EQ(lines["blocks.2.attention.qkv.weight"], all_nvfp4);

  recipe.high_precision.clear();
  recipe.linear.grad_weight_x = {.format = Format::bf16};
  recipe.linear.grad_weight_dy = {.format = Format::nvfp4};
  EXPECT_EQ(layers(recipe)["head.weight"], "forward nvfp4, grad_input nvfp4, grad_weight nvfp4 x bf16");
}

// The rules do what Linear::describe() says: exempting all layers is the plain recipe, bit for bit; exempting fewer is
// not.
TEST(LowPrecision, ExemptLayersComputeInTheirFormat) {
  const LanguageModelOptions options{.sequences = 2, .sequence_length = 64};
  const auto run = [&](const Recipe& recipe) {
    TestModel test(config_of(DType::bf16), recipe, options);
    test.forward_backward(context);
    return test.gradients;
  };
  Recipe exempt = nvidia();
  exempt.high_precision = {{.layers = {.match = "weight"}}};
  const std::vector<float> expected = run(plain(Format::bf16));
  EXPECT_TRUE(same_bits(run(exempt), expected));
  exempt.high_precision = {
      {.layers = {.match = "head"}}, {.layers = {.first_blocks = 2}}, {.layers = {.last_share = 0.5}}};
  EXPECT_TRUE(same_bits(run(exempt), expected));
  for (const char* rule : {"mlp|head", "attention|head", "attention|mlp", "output|down|gate_up|head"}) {
    exempt.high_precision = {{.layers = {.match = rule}}};
    EXPECT_FALSE(same_bits(run(exempt), expected)) << rule;
  }
}

// The rules still know a tied head as the head.
TEST(LowPrecision, TiedHeadFollowsTheRulesOfTheHead) {
  ModelConfig config = config_of(DType::bf16);
  config.tied_head = true;
  Recipe recipe = nvidia();
  recipe.high_precision = {{.layers = {.match = "head.*"}}};
  const LanguageModel model(config, recipe, {.sequence_length = 64});
  EXPECT_EQ(model.linears().back()->name(), "head.weight");
  EXPECT_EQ(model.linears().back()->describe(), all_bf16);
}

TEST(LowPrecision, NonFiniteValuesAreCounted) {
  const LanguageModelOptions options{.sequences = 2, .sequence_length = 64};
  TestModel test(config_of(DType::bf16), nvidia(), options);
  test.forward(context);
  EXPECT_EQ(test.model.take_non_finite_count(), 0);
  for (const Parameter& parameter : test.model.parameters().parameters()) {
    if (parameter.name != "blocks.1.mlp.gate_up.weight") continue;
    test.weights[parameter.offset + 5] = std::numeric_limits<float>::infinity();
    test.weights[parameter.offset + 6] = std::numeric_limits<float>::quiet_NaN();
  }
  test.bind();
  const double loss = test.forward(context);
  EXPECT_TRUE(std::isnan(loss));
  EXPECT_GE(test.model.take_non_finite_count(), 2);
  EXPECT_EQ(test.model.take_non_finite_count(), 0);
}

}  // namespace
}  // namespace nibble::test
