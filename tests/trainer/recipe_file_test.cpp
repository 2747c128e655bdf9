#include "trainer/recipe_file.h"

#include <gtest/gtest.h>

#include <string>

#include "dist/error.h"

namespace nibble {
namespace {

constexpr OperandSpec nearest_1x16 = {.format = Format::nvfp4};
constexpr OperandSpec nearest_16x16 = {.format = Format::nvfp4, .block = BlockShape::square};
constexpr OperandSpec stochastic_1x16 = {.format = Format::nvfp4, .round = Rounding::stochastic_published};

Recipe parse(const std::string& text) {
  return parse_recipe(parse_yaml(text, "r.yaml"));
}

void expect_refused(const std::string& text, const std::string& message) {
  try {
    parse(text);
    FAIL() << "accepted: " << text;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_config);
    EXPECT_EQ(std::string(error.what()).substr(0, message.size()), message);
    EXPECT_FALSE(error.remedy().empty()) << text;
  }
}

TEST(RecipeFile, MissingSectionsAreBf16) {
  EXPECT_EQ(parse("name: x\nforward:\n").linear, plain_recipe(Format::bf16));
  const Recipe recipe = parse("forward: {w: {format: nvfp4}}");
  EXPECT_EQ(recipe.linear.forward_w, nearest_1x16);
  EXPECT_EQ(recipe.linear.forward_x, OperandSpec{});
}

TEST(RecipeFile, PublishedRecipes) {
  const std::string folder = NIBBLE_SOURCE_DIR "/configs/recipes/";
  const Recipe bf16 = load_recipe(folder + "bf16.yaml");
  EXPECT_EQ(bf16.name, "bf16");
  EXPECT_EQ(bf16.linear, plain_recipe(Format::bf16));
  EXPECT_TRUE(bf16.high_precision.empty());

  const Recipe nvfp4 = load_recipe("nvfp4", NIBBLE_SOURCE_DIR "/configs/runs");
  LinearRecipe expected;
  expected.forward_x = nearest_1x16;
  expected.forward_w = nearest_16x16;
  expected.grad_input_dy = stochastic_1x16;
  expected.grad_input_w = nearest_16x16;
  expected.grad_weight_dy = stochastic_1x16;
  expected.grad_weight_dy.rotate = 16;
  expected.grad_weight_x = nearest_1x16;
  expected.grad_weight_x.rotate = 16;
  EXPECT_EQ(nvfp4.linear, expected);
  for (int block = 0; block < 8; ++block) {
    const bool exempt = block == 0 || block >= 6;
    EXPECT_EQ(resolve(nvfp4, "blocks.0.mlp.up.weight", block, 8), exempt ? plain_recipe(Format::bf16) : expected)
        << block;
  }
  EXPECT_EQ(resolve(nvfp4, "head.weight", -1, 8), plain_recipe(Format::bf16));
}

TEST(RecipeFile, TextComesBack) {
  const std::string texts[] = {
      "name: a",
      "{forward: {x: {format: nvfp4}, w: {format: nvfp4, block: 16x16}}, grad_weight: {x: {format: bf16, from: "
      "saved}}}",
      "{grad_weight: {dy: {format: nvfp4, rotate: 16, round: stochastic}, x: {format: nvfp4, rotate: 16}}}",
      "{high_precision: [{match: \"a|\\\"b\"}, {first_blocks: 2, format: fp32}, {last_blocks: 3}, {last_share: "
      "0.15}]}"};
  for (const std::string& text : texts) {
    const Recipe recipe = parse(text);
    const std::string written = recipe_yaml(recipe);
    const Recipe again = parse(written);
    EXPECT_EQ(again.linear, recipe.linear);
    EXPECT_EQ(recipe_yaml(again), written);
    ASSERT_EQ(again.high_precision.size(), recipe.high_precision.size());
    for (size_t i = 0; i < again.high_precision.size(); ++i) {
      EXPECT_EQ(again.high_precision[i].layers.match, recipe.high_precision[i].layers.match);
      EXPECT_EQ(again.high_precision[i].layers.last_share, recipe.high_precision[i].layers.last_share);
      EXPECT_EQ(again.high_precision[i].format, recipe.high_precision[i].format);
    }
  }
}

TEST(RecipeFile, RefusesUnknownWords) {
  expect_refused("forwrad: {}", "r.yaml:1:1: unknown key \"forwrad\" (did you mean \"forward\"?)");
  expect_refused("forward: {dy: {}}", "r.yaml:1:11: unknown key \"forward.dy\"");
  expect_refused("forward: {x: {fromat: bf16}}", "r.yaml:1:15: unknown key \"forward.x.fromat\" (did you mean");
  expect_refused("forward:\n  x: {format: nvfp5}", "r.yaml:2:15: \"nvfp5\" is not a value of \"format\" (did you mean");
  expect_refused("forward: {x: {format: nvfp4, block: 32x32}}", "r.yaml:1:37: \"32x32\" is not a value of \"block\"");
  expect_refused("forward: {x: {format: nvfp4, rotate: 128}}", "r.yaml:1:38: \"128\" is not a value of \"rotate\"");
  expect_refused("forward: {x: nvfp4}", "r.yaml:1:14: forward.x must be a mapping");
  expect_refused("high_precision: {match: a}", "r.yaml:1:17: \"high_precision\" must be a list");
  expect_refused("name: [a]", "r.yaml:1:7: \"name\" needs a single value");
  expect_refused("name: \"a b\"", "r.yaml:1:7: \"a b\" is not a recipe name");
  expect_refused("- a", "r.yaml:1:1: a recipe must be a mapping");
}

TEST(RecipeFile, RefusesContradictions) {
  expect_refused("forward: {x: {format: bf16, round: stochastic}}",
                 "r.yaml:1:29: forward.x is bf16, which has no \"round\"");
  expect_refused("forward: {x: {block: 16x16}}", "r.yaml:1:15: forward.x is bf16, which has no \"block\"");
  expect_refused("forward: {x: {rotate: 16}}", "r.yaml:1:15: forward.x is bf16, which has no \"rotate\"");
  expect_refused("forward: {w: {format: nvfp4, block: 16x16, rotate: 16}}",
                 "r.yaml:1:44: forward.w is rotated but has 16x16 blocks");
  expect_refused("grad_weight: {dy: {format: nvfp4, rotate: 16}, x: {format: nvfp4}}",
                 "r.yaml:1:1: grad_weight rotates only one of its operands");
  expect_refused("forward: {w: {format: nvfp4, from: saved}}", "r.yaml:1:30: forward.w cannot be made from a saved");
  expect_refused("grad_input: {dy: {format: nvfp4, from: saved}}", "r.yaml:1:34: grad_input.dy cannot be made from");
  expect_refused("grad_input: {w: {format: nvfp4, from: saved}}", "r.yaml:1:1: grad_input.w is made from the saved");
}

TEST(RecipeFile, RefusesBadRules) {
  const auto rule = [](const std::string& text) { return "high_precision:\n  - " + text; };
  expect_refused(rule("{format: bf16}"), "r.yaml:2:5: a high_precision rule with 0 conditions");
  expect_refused(rule("{match: a, last_blocks: 1}"), "r.yaml:2:5: a high_precision rule with 2 conditions");
  expect_refused(rule("{match: a, format: nvfp4}"), "r.yaml:2:24: \"nvfp4\" is not a value of \"format\"");
  expect_refused(rule("{match: \"(\"}"), "r.yaml:2:13: \"(\" is not a regular expression");
  expect_refused(rule("{match: \"\"}"), "r.yaml:2:13: \"match\" must have 1 to 200 characters");
  expect_refused(rule("{first_blocks: 0}"), "r.yaml:2:20: \"0\" is not a number of blocks");
  expect_refused(rule("{first_blocks: -1}"), "r.yaml:2:20: \"-1\" is not a number of blocks");
  expect_refused(rule("{last_share: 1.5}"), "r.yaml:2:18: \"1.5\" is not a share of the blocks");
  expect_refused(rule("{last_share: nan}"), "r.yaml:2:18: \"nan\" is not a share of the blocks");
}

TEST(RecipeFile, UnknownNameListsThePlaces) {
  try {
    load_recipe("no_such_recipe", "some/where");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::missing_input);
    EXPECT_NE(error.remedy().find("some/where/../recipes"), std::string::npos);
  }
}

}  // namespace
}  // namespace nibble
