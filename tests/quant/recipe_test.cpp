#include "quant/recipe.h"

#include <gtest/gtest.h>

#include "dist/error.h"

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

TEST(Recipe, MatchSearchesTheName) {
  const Recipe recipe = four_bit({rule_match("embedding|^head")});
  EXPECT_EQ(format_of(recipe, "head.weight", -1, 4), Format::bf16);
  EXPECT_EQ(format_of(recipe, "token_embedding", -1, 4), Format::bf16);
  EXPECT_EQ(format_of(recipe, "blocks.0.overhead", 0, 4), Format::nvfp4);
  EXPECT_EQ(format_of(four_bit({rule_match("blocks\\.[13]\\.")}), "blocks.3.mlp.up", 3, 4), Format::bf16);
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
  expect_bad_config(four_bit({rule_match("(unclosed")}));
  expect_bad_config(four_bit({HighPrecisionRule{}}));
  expect_bad_config(four_bit({{{"layer", 1, 0, 0}, Format::bf16}}));
  expect_bad_config(four_bit({{{"", -1, 0, 0}, Format::bf16}}));
  expect_bad_config(four_bit({{{"", 0, 0, 1.5}, Format::bf16}}));
  // A bad rule is refused even behind one that applies.
  expect_bad_config(four_bit({rule_match("layer"), HighPrecisionRule{}}));
}

}  // namespace
}  // namespace nibble
