#include "quant/recipe/recipe.h"

#include <gtest/gtest.h>

#include "dist/base/error.h"

namespace nibble {
namespace {

Recipe four_bit(std::vector<HighPrecisionRule> rules) {
  return Recipe{.name = "test", .linear = plain_recipe(Format::nvfp4), .high_precision = std::move(rules)};
}

Format format_of(const Recipe& recipe, std::string_view name, int block, int blocks) {
  const LinearRecipe linear = resolve(recipe, name, block, blocks);
  EXPECT_EQ(linear, plain_recipe(linear.forward_x.format));
  return linear.forward_x.format;
}

std::string formats_of_blocks(const Recipe& recipe, int blocks) {
  std::string text;
  for (int block = 0; block < blocks; ++block) {
    text += format_of(recipe, "layer.weight", block, blocks) == Format::nvfp4 ? '4' : '-';
  }
  return text;
}

HighPrecisionRule rule_match(const std::string& match, Format format = Format::bf16) {
  return {{match, 0, 0, 0}, format};
}

TEST(Recipe, MatchIsOnTheName) {
  const Recipe recipe = four_bit({rule_match("embedding|head*")});
  EXPECT_EQ(format_of(recipe, "head.weight", -1, 4), Format::bf16);
  EXPECT_EQ(format_of(recipe, "token_embedding", -1, 4), Format::bf16);
  EXPECT_EQ(format_of(recipe, "blocks.0.overhead", 0, 4), Format::nvfp4);
  EXPECT_EQ(format_of(four_bit({rule_match("blocks.[13].*")}), "blocks.3.mlp.up", 3, 4), Format::bf16);
}

TEST(Recipe, PlainFormats) {
  for (const Format format : {Format::f32, Format::bf16, Format::nvfp4, Format::mxfp4, Format::fp8_e4m3}) {
    EXPECT_EQ(plain_recipe(format).grad_weight_x, OperandSpec{.format = format});
  }
  for (const Format format : {Format::mxfp8_e4m3, Format::mxfp8_e5m2}) {
    EXPECT_EQ(plain_recipe(format).grad_input_dy, (OperandSpec{.format = format, .scale = ScaleRule::amax_up}));
  }
  EXPECT_EQ(resolve(four_bit({rule_match("out", Format::mxfp8_e4m3)}), "mlp.out", 0, 1),
            plain_recipe(Format::mxfp8_e4m3));
}

TEST(Recipe, LayersComeAfterHighPrecision) {
  Recipe recipe = four_bit({rule_match("attention")});
  LinearRecipe other = plain_recipe(Format::nvfp4);
  other.grad_input_dy.round = Rounding::stochastic;
  recipe.layers = {{.layers = {.match = "*.down.*|attention"}, .linear = other},
                   {.layers = {.last_blocks = 1}, .linear = plain_recipe(Format::mxfp4)}};
  EXPECT_EQ(resolve(recipe, "blocks.0.attention.qkv.weight", 0, 2), plain_recipe(Format::bf16));
  EXPECT_EQ(resolve(recipe, "blocks.0.mlp.down.weight", 0, 2), other);
  EXPECT_EQ(resolve(recipe, "blocks.1.mlp.down.weight", 1, 2), other);
  EXPECT_EQ(resolve(recipe, "blocks.1.mlp.up.weight", 1, 2), plain_recipe(Format::mxfp4));
  EXPECT_EQ(resolve(recipe, "blocks.0.mlp.up.weight", 0, 2), recipe.linear);
}

uint64_t step_of_switch(double at, uint64_t steps) {
  Recipe recipe = four_bit({});
  recipe.late_switch = LateSwitch{.at = at};
  return switch_step(recipe, steps);
}

TEST(Recipe, SwitchStepRoundsUpButNotOverDecimals) {
  EXPECT_EQ(switch_step(four_bit({}), 100), 100U);
  EXPECT_EQ(step_of_switch(1, 100), 100U);
  EXPECT_EQ(step_of_switch(0.82, 100), 82U);
  EXPECT_EQ(step_of_switch(0.82, 50), 41U);
  EXPECT_EQ(step_of_switch(0.07, 100), 7U);  // 0.07 * 100 is a little more than 7 in FP64
  EXPECT_EQ(step_of_switch(0.5, 3), 2U);
  EXPECT_EQ(step_of_switch(1e-6, 10), 1U);
  EXPECT_EQ(step_of_switch(1, 4294967295), 4294967295U);
}

TEST(Recipe, SwitchedGemms) {
  OperandSpec saved{.format = Format::nvfp4, .from = Source::saved};
  const OperandSpec rows{.format = Format::nvfp4};
  const OperandSpec plain = plain_operand(Format::bf16);
  Recipe recipe = four_bit({rule_match("head", Format::f32)});
  recipe.linear = {rows, rows, rows, saved, rows, saved};
  recipe.layers = {{.layers = {.first_blocks = 1}, .linear = recipe.linear}};
  EXPECT_EQ(switched(recipe).linear, recipe.linear);

  const auto run = [&](SwitchedGemms gemms, Format to) {
    recipe.late_switch = LateSwitch{.at = 0.5, .gemms = gemms, .to = to};
    const Recipe result = switched(recipe);
    EXPECT_EQ(result.layers.at(0).linear, result.linear);
    EXPECT_EQ(result.high_precision.at(0).format, Format::f32);
    EXPECT_FALSE(result.late_switch);
    return result.linear;
  };
  EXPECT_EQ(run(SwitchedGemms::forward, Format::bf16), (LinearRecipe{plain, plain, rows, rows, rows, rows}));
  EXPECT_EQ(run(SwitchedGemms::backward, Format::bf16), (LinearRecipe{rows, rows, plain, plain, plain, plain}));
  EXPECT_EQ(run(SwitchedGemms::all, Format::bf16), plain_recipe(Format::bf16));
  const OperandSpec eight = plain_operand(Format::mxfp8_e4m3);
  EXPECT_EQ(run(SwitchedGemms::forward, Format::mxfp8_e4m3), (LinearRecipe{eight, eight, rows, saved, rows, saved}));
}

TEST(Recipe, FirstRuleThatAppliesWins) {
  const Recipe recipe = four_bit({rule_match("up", Format::f32), rule_match("mlp", Format::bf16)});
  EXPECT_EQ(format_of(recipe, "mlp.up", 0, 1), Format::f32);
  EXPECT_EQ(format_of(recipe, "mlp.down", 0, 1), Format::bf16);
}

TEST(Recipe, RulesByPosition) {
  EXPECT_EQ(formats_of_blocks(four_bit({{{"", 2, 0, 0}, Format::bf16}}), 6), "--4444");
  EXPECT_EQ(formats_of_blocks(four_bit({{{"", 0, 2, 0}, Format::bf16}}), 6), "4444--");
  EXPECT_EQ(formats_of_blocks(four_bit({{{"", 0, 9, 0}, Format::bf16}}), 3), "---");
  EXPECT_EQ(formats_of_blocks(four_bit({{{"", 1, 0, 0}, Format::bf16}, {{"", 0, 1, 0}, Format::bf16}}), 4), "-44-");
}

TEST(Recipe, ShareRoundsUpButNotOverDecimals) {
  EXPECT_EQ(formats_of_blocks(four_bit({{{"", 0, 0, 0.15}, Format::bf16}}), 20), "44444444444444444---");
  EXPECT_EQ(formats_of_blocks(four_bit({{{"", 0, 0, 0.15}, Format::bf16}}), 4), "444-");
  EXPECT_EQ(formats_of_blocks(four_bit({{{"", 0, 0, 0.07}, Format::bf16}}), 100).find('-'), 93u);
  EXPECT_EQ(formats_of_blocks(four_bit({{{"", 0, 0, 1}, Format::bf16}}), 3), "---");
}

TEST(Recipe, LayersOutsideTheBlocksAreExemptByNameOnly) {
  EXPECT_EQ(format_of(four_bit({{{"", 4, 0, 0}, Format::bf16}, {{"", 0, 4, 0}, Format::bf16}}), "head", -1, 4),
            Format::nvfp4);
}

void expect_bad_config(const Recipe& recipe) {
  try {
    resolve(recipe, "layer", 0, 2);
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_config);
    EXPECT_NE(std::string(error.what()).find("recipe test"), std::string::npos);
    EXPECT_FALSE(error.remedy().empty());
  }
}

TEST(Recipe, RefusesBadRules) {
  expect_bad_config(four_bit({rule_match("[unclosed")}));
  expect_bad_config(four_bit({HighPrecisionRule{}}));
  expect_bad_config(four_bit({{{"layer", 1, 0, 0}, Format::bf16}}));
  expect_bad_config(four_bit({{{"", -1, 0, 0}, Format::bf16}}));
  expect_bad_config(four_bit({{{"", 0, 0, 1.5}, Format::bf16}}));
  Recipe bad_layer = four_bit({rule_match("layer")});
  bad_layer.layers = {LayerRule{}};
  expect_bad_config(bad_layer);
  // A bad rule is refused even behind one that applies.
  expect_bad_config(four_bit({rule_match("layer"), HighPrecisionRule{}}));
}

}  // namespace
}  // namespace nibble
