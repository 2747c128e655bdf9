#include "trainer/config/recipe/recipe_file.h"

#include <gtest/gtest.h>

#include <string>

#include "recipe_support.h"

namespace nibble::test {
namespace {

TEST(RecipeFile, MissingSectionsAreBf16) {
  EXPECT_EQ(parse("name: x\nforward:\n").linear, plain_recipe(Format::bf16));
  const Recipe recipe = parse("forward: {w: {format: nvfp4}}");
  EXPECT_EQ(recipe.linear.forward_w, plain_operand(Format::nvfp4));
  EXPECT_EQ(recipe.linear.forward_x, OperandSpec{});
}

TEST(RecipeFile, AFormatStandsForAnOperandOrAProduct) {
  const Recipe recipe = parse("{forward: mxfp8_e4m3, grad_weight: {dy: fp8_e5m2}}");
  EXPECT_EQ(recipe.linear.forward_x, plain_operand(Format::mxfp8_e4m3));
  EXPECT_EQ(recipe.linear.forward_w, (OperandSpec{.format = Format::mxfp8_e4m3, .scale = ScaleRule::amax_up}));
  EXPECT_EQ(recipe.linear.grad_input_w, OperandSpec{});
  EXPECT_EQ(recipe.linear.grad_weight_dy, OperandSpec{.format = Format::fp8_e5m2});
}

TEST(RecipeFile, EveryKeyOfAnOperand) {
  const Recipe recipe = parse(
      "{forward: {w: {signs: step, rotations: 2, rotate: 64, ceiling: 256, range: 5.5, outer: 1x128, format: nvfp4,"
      " round: stochastic, scale: four_over_six_mae, block: 1x16},"
      " x: {format: fp8_e4m3, history: 1_0, rotate: 64, rotations: 2, signs: step}},"
      " grad_input: {w: {format: nvfp4, round: ms_eden, correction: per_128, rotate: 16, signs: micro_batch},"
      " dy: {format: nvfp4, rotate: 16, signs: micro_batch}}}");
  const OperandSpec w{.format = Format::nvfp4,
                      .scale = ScaleRule::four_over_six_mae,
                      .round = Rounding::stochastic,
                      .range = 5.5F,
                      .ceiling = 256,
                      .outer = OuterScale::row_128,
                      .rotate = 64,
                      .rotations = 2,
                      .signs = Signs::step};
  EXPECT_EQ(recipe.linear.forward_w, w);
  EXPECT_EQ(recipe.linear.forward_x.history, 10);
  EXPECT_EQ(recipe.linear.grad_input_w.correction, EdenCorrection::per_128);
  EXPECT_EQ(recipe.linear.grad_input_dy.signs, Signs::micro_batch);
}

TEST(RecipeFile, LayersWriteOverTheRecipe) {
  const Recipe recipe = parse(R"(
layers:
  - {match: "*.down.weight", grad_input: {dy: {round: stochastic}}}
  - {last_blocks: 2, format: mxfp8_e4m3, forward: bf16}
forward: nvfp4
grad_input: nvfp4
switch: {at: 0.82, gemms: forward, to: fp8_e4m3}
)");
  ASSERT_EQ(recipe.layers.size(), 2U);
  LinearRecipe down = recipe.linear;
  down.grad_input_dy.round = Rounding::stochastic;
  EXPECT_EQ(recipe.layers[0].linear, down);
  EXPECT_EQ(recipe.layers[0].layers.match, "*.down.weight");
  LinearRecipe last = plain_recipe(Format::mxfp8_e4m3);
  last.forward_x = last.forward_w = plain_operand(Format::bf16);
  EXPECT_EQ(recipe.layers[1].linear, last);
  EXPECT_EQ(recipe.layers[1].layers.last_blocks, 2);
  ASSERT_TRUE(recipe.late_switch);
  EXPECT_EQ(recipe.late_switch->at, 0.82);
  EXPECT_EQ(recipe.late_switch->gemms, SwitchedGemms::forward);
  EXPECT_EQ(recipe.late_switch->to, Format::fp8_e4m3);
}

TEST(RecipeFile, TextComesBack) {
  const std::string texts[] = {
      "name: a",
      R"(
forward: {x: {format: nvfp4}, w: {format: nvfp4, block: 16x16}}
grad_weight: {x: {format: bf16, from: saved}}
)",
      "grad_weight: {dy: {format: nvfp4, rotate: 16, round: stochastic}, x: {format: nvfp4, rotate: 16}}",
      R"(
grad_weight:
  dy: {format: nvfp4, rotate: 128, rotations: 2, signs: step, round: ms_eden, correction: per_128}
  x: {format: mxfp4, scale: rms, rotate: 128, rotations: 2, signs: step}
)",
      R"(
forward: {x: {format: nvfp4, scale: search, range: 6.07211, ceiling: 0.1e3}, w: {format: fp8_e5m2, history: 7}}
grad_input: {dy: mxfp8_e5m2, w: {format: nvfp4, outer: 1x128}}
grad_weight: fp32
)",
      R"(
high_precision: [{match: "a|[bc]*"}, {first_blocks: 2, format: mxfp8_e4m3}, {last_blocks: 3}, {last_share: 0.15}]
layers: [{match: "?x*", format: nvfp4, grad_weight: {dy: {round: stochastic}}}, {last_share: 0.3, forward: fp32}]
switch: {at: 0.123456789}
)",
      R"(
forward: nvfp4
oscillation: {every: 7, window: 6, threshold: 1.5, from_share: 0.123456789}
)",
      "oscillation: {}\noutliers: {}",
      "outliers: {share: 0.123456789, format: fp8_e5m2, from_step: 0, window: 1}"};
  for (const std::string& text : texts) expect_comes_back(parse(text));
}

TEST(RecipeFile, OscillationNeedsWeightsThatAreRoundedToNearestInPlace) {
  EXPECT_EQ(parse("oscillation: {}").oscillation, OscillationRule());
  const std::string rule = "oscillation: {every: 10, window: 2}\n";
  expect_refused(rule + "forward: {x: {format: nvfp4, rotate: 16}, w: {format: nvfp4, rotate: 16}}",
                 "r.yaml:1:14: \"oscillation\" needs to know the values of forward.w");
  expect_refused(rule + "layers: [{first_blocks: 1, forward: {w: {format: nvfp4, round: stochastic}}}]",
                 "r.yaml:1:14: \"oscillation\" needs to know the values of forward.w");
  expect_refused("oscillation: {every: 10, window: 10}", "r.yaml:1:14: a window of 10 steps every 10");
  expect_refused("oscillation: {every: 0}", "r.yaml:1:22: \"0\" is not a number of steps");
  expect_refused("oscillation: {threshold: 0.5}", "r.yaml:1:26: \"0.5\" is not a threshold");
  expect_refused("oscillation: {from_share: 2}", "r.yaml:1:27: \"2\" is not a share of the run");
  expect_refused("oscillation: {form_share: 1}", "r.yaml:1:15: unknown key \"oscillation.form_share\" (did you mean");
  expect_refused("oscillation: 5", "r.yaml:1:14: \"oscillation\" must be a mapping");
}

TEST(RecipeFile, OutliersAreAShareInEightBits) {
  EXPECT_EQ(parse("outliers: {}").outliers, OutlierRule());
  EXPECT_FALSE(parse("name: a").outliers);
  expect_refused("outliers: {share: 0.5}", "r.yaml:1:19: \"0.5\" of the channels are no outliers");
  expect_refused("outliers: {share: 0}", "r.yaml:1:19: \"0\" is not a share of the channels");
  expect_refused("outliers: {format: nvfp4}", "r.yaml:1:20: \"nvfp4\" is not a value of \"format\"");
  expect_refused("outliers: {from_step: -1}", "r.yaml:1:23: \"-1\" is not a number of steps");
  expect_refused("outliers: {window: 0}", "r.yaml:1:20: \"0\" is not a number of steps");
  expect_refused("outliers: {form_step: 1}", "r.yaml:1:12: unknown key \"outliers.form_step\" (did you mean");
  expect_refused("outliers: []", "r.yaml:1:11: \"outliers\" must be a mapping");
}

TEST(RecipeFile, RefusesUnknownWords) {
  expect_refused("forwrad: {}", "r.yaml:1:1: unknown key \"forwrad\" (did you mean \"forward\"?)");
  expect_refused("forward: {dy: {}}", "r.yaml:1:11: unknown key \"forward.dy\"");
  expect_refused("forward: {x: {fromat: bf16}}", "r.yaml:1:15: unknown key \"forward.x.fromat\" (did you mean");
  expect_refused("forward:\n  x: {format: nvfp5}", "r.yaml:2:15: \"nvfp5\" is not a value of \"format\" (did you mean");
  expect_refused("forward: nvfp5", "r.yaml:1:10: \"nvfp5\" is not a value of \"forward\" (did you mean");
  expect_refused("forward: {x: nvfp5}", "r.yaml:1:14: \"nvfp5\" is not a value of \"x\" (did you mean");
  expect_refused("forward: {x: [nvfp4]}", "r.yaml:1:14: forward.x must be a mapping");
  expect_refused("forward: [nvfp4]", "r.yaml:1:10: \"forward\" must be a mapping");
  expect_refused("high_precision: {match: a}", "r.yaml:1:17: \"high_precision\" must be a list");
  expect_refused("layers: bf16", "r.yaml:1:9: \"layers\" must be a list");
  expect_refused("name: [a]", "r.yaml:1:7: \"name\" needs a single value");
  expect_refused("name: \"a b\"", "r.yaml:1:7: \"a b\" is not a recipe name");
  expect_refused("- a", "r.yaml:1:1: a recipe must be a mapping");
}

TEST(RecipeFile, RefusesUnknownValues) {
  const auto operand = [](const std::string& setting) { return "forward: {x: {format: nvfp4, " + setting + "}}"; };
  expect_refused(operand("block: 32x32"), "r.yaml:1:37: \"32x32\" is not a value of \"block\"");
  expect_refused(operand("block: 1x32"), "r.yaml:1:37: \"1x32\" is not a value of \"block\"");
  expect_refused("forward: {x: {format: mxfp4, block: 16x16}}", "r.yaml:1:37: \"16x16\" is not a value of \"block\"");
  expect_refused(operand("scale: amx"), "r.yaml:1:37: \"amx\" is not a value of \"scale\" (did you mean \"amax\"?)");
  expect_refused(operand("round: mseden"), "r.yaml:1:37: \"mseden\" is not a value of \"round\" (did you mean");
  expect_refused(operand("correction: per_32"), "r.yaml:1:42: \"per_32\" is not a value of \"correction\"");
  expect_refused(operand("rotate: 48"), "r.yaml:1:38: \"48\" is not a value of \"rotate\"");
  expect_refused(operand("rotations: 3"), "r.yaml:1:41: \"3\" is not a value of \"rotations\"");
  expect_refused(operand("signs: random"), "r.yaml:1:37: \"random\" is not a value of \"signs\"");
  expect_refused(operand("outer: 1x16"), "r.yaml:1:37: \"1x16\" is not a value of \"outer\"");
  expect_refused(operand("from: stored"), "r.yaml:1:36: \"stored\" is not a value of \"from\"");
  expect_refused(operand("range: -1"), "r.yaml:1:37: \"-1\" is not a value of \"range\"");
  expect_refused(operand("ceiling: 449"), "r.yaml:1:39: \"449\" is not a value of \"ceiling\"");
  expect_refused("forward: {x: {format: fp8_e4m3, history: 1025}}",
                 "r.yaml:1:42: \"1025\" is not a value of \"history\"");
}

// A contradiction is reported at the key that caused it.
TEST(RecipeFile, RefusesContradictionsOfAnOperand) {
  expect_refused("forward: {x: {format: bf16, round: stochastic}}",
                 "r.yaml:1:29: forward.x is bf16, which has no \"round\"");
  expect_refused("forward: {x: {block: 16x16}}", "r.yaml:1:15: forward.x is bf16, which has no \"block\"");
  expect_refused("forward: {x: {rotate: 16}}", "r.yaml:1:15: forward.x is bf16, which has no \"rotate\"");
  expect_refused("forward: {x: {format: fp8_e4m3, block: 1x16}}", "r.yaml:1:33: forward.x is fp8_e4m3, which has no");
  expect_refused("forward: {w: {format: nvfp4, block: 16x16, rotate: 16}}",
                 "r.yaml:1:44: forward.w: square blocks are rotated");
  expect_refused("forward: {w: {rotate: 16, block: 16x16, format: nvfp4}}",
                 "r.yaml:1:27: forward.w: square blocks are rotated");
  expect_refused("forward: {x: {format: nvfp4, signs: step, range: 6}}",
                 "r.yaml:1:30: forward.x: signs are drawn, but nothing is rotated");
  expect_refused("forward: {x: {format: mxfp4, range: 6}}", "r.yaml:1:30: forward.x: mxfp4 does not know range");
  expect_refused("forward: {x: {format: nvfp4, scale: amax_up}}", "r.yaml:1:30: forward.x: nvfp4 does not know scale");
  expect_refused("forward: {x: {format: nvfp4, history: 4}}", "r.yaml:1:30: forward.x: nvfp4 does not know history");
  expect_refused("forward: {x: {format: fp8_e4m3, round: stochastic}}",
                 "r.yaml:1:33: forward.x: fp8_e4m3 does not know");
  expect_refused("forward: {x: {format: nvfp4, correction: per_16}}",
                 "r.yaml:1:30: forward.x: a correction, but no ms_eden");
  expect_refused("forward: {w: {format: nvfp4, from: saved}}", "r.yaml:1:30: forward.w cannot be made from a saved");
  expect_refused("grad_input: {dy: {format: nvfp4, from: saved}}", "r.yaml:1:34: grad_input.dy cannot be made from");
}

TEST(RecipeFile, RefusesBiasedMsEden) {
  expect_refused("grad_input: {w: {format: nvfp4, round: ms_eden}}",
                 "r.yaml:1:33: grad_input.w: round: ms_eden without drawn signs is biased");
  expect_refused("grad_input: {w: {format: nvfp4, rotate: 128, round: ms_eden, signs: fixed}}",
                 "r.yaml:1:46: grad_input.w: round: ms_eden without drawn signs is biased");
  const std::string both = "{format: nvfp4, rotate: 128, round: ms_eden, signs: step}";
  EXPECT_NO_THROW(parse("grad_input: {dy: " + both + ", w: " + both + "}"));
}

TEST(RecipeFile, RefusesSignsThatTheForwardWeightCannotFollow) {
  expect_refused("forward: {w: {format: nvfp4, rotate: 16, signs: micro_batch}}",
                 "r.yaml:1:42: forward.w: signs: micro_batch, but the forward weight is made once a step");
  EXPECT_NO_THROW(
      parse("forward: {x: {format: nvfp4, rotate: 16, signs: step}, w: {format: nvfp4, rotate: 16, signs: "
            "step}}"));
}

TEST(RecipeFile, RefusesContradictionsBetweenOperands) {
  expect_refused("grad_weight: {dy: {format: nvfp4, rotate: 16}, x: {format: nvfp4}}",
                 "r.yaml:1:48: grad_weight: dy and x differ in rotate: 16 and 0");
  expect_refused("grad_weight: {dy: {format: nvfp4, rotate: 16, rotations: 2}, x: {format: nvfp4, rotate: 16}}",
                 "r.yaml:1:62: grad_weight: dy and x differ in rotations: 2 and 1");
  expect_refused("forward: {w: {format: nvfp4, rotate: 16, signs: step}, x: {format: nvfp4, rotate: 16}}",
                 "r.yaml:1:56: forward: x and w differ in signs: fixed and step");
  expect_refused("grad_input: {w: {format: nvfp4, from: saved}}",
                 "r.yaml:1:14: grad_input.w is made from the saved forward operand, which is not quantised");
  expect_refused("grad_weight: {x: {format: nvfp4, from: saved}}\nforward: bf16",
                 "r.yaml:2:1: grad_weight.x is made from the saved forward operand, which is not quantised");
  expect_refused(
      "forward: {x: {format: nvfp4, rotate: 16}, w: {format: nvfp4, rotate: 16}}\ngrad_weight: {x: {format: bf16, "
      "from: saved}}",
      "r.yaml:2:15: grad_weight.x is made from the saved forward operand, which is rotated");
}

TEST(RecipeFile, RefusesBadRules) {
  const auto rule = [](const std::string& text) { return "high_precision:\n  - " + text; };
  expect_refused(rule("{format: bf16}"), "r.yaml:2:5: a rule of high_precision with 0 conditions");
  expect_refused(rule("{match: a, last_blocks: 1}"), "r.yaml:2:5: a rule of high_precision with 2 conditions");
  expect_refused(rule("{match: a, format: fp9}"), "r.yaml:2:24: \"fp9\" is not a value of \"format\"");
  expect_refused(rule("{match: a, forward: bf16}"), "r.yaml:2:16: unknown key \"high_precision.forward\"");
  expect_refused(rule("{match: \"^head\"}"), "r.yaml:2:13: \"^head\" holds a character that no parameter's name has");
  expect_refused(rule("{match: \"[a\"}"), "r.yaml:2:13: \"[a\" has a [ without its ]");
  expect_refused(rule("{match: \"\"}"), "r.yaml:2:13: \"match\" must have 1 to 200 characters");
  expect_refused(rule("{first_blocks: 0}"), "r.yaml:2:20: \"0\" is not a number of blocks");
  expect_refused(rule("{first_blocks: -1}"), "r.yaml:2:20: \"-1\" is not a number of blocks");
  expect_refused(rule("{last_share: 1.5}"), "r.yaml:2:18: \"1.5\" is not a share of the blocks");
  expect_refused(rule("{last_share: nan}"), "r.yaml:2:18: \"nan\" is not a share of the blocks");
}

TEST(RecipeFile, RefusesBadLayers) {
  const auto rule = [](const std::string& text) { return "layers:\n  - " + text; };
  expect_refused(rule("{forward: bf16}"), "r.yaml:2:5: a rule of layers with 0 conditions");
  expect_refused(rule("{match: a, first_blocks: 1}"), "r.yaml:2:5: a rule of layers with 2 conditions");
  expect_refused(rule("{match: a, foward: bf16}"), "r.yaml:2:16: unknown key \"layers.foward\" (did you mean");
  expect_refused(rule("bf16"), "r.yaml:2:5: a rule of layers must be a mapping");
  // The rule is valid by itself, but not together with the recipe's own operands.
  expect_refused("forward: {w: {format: nvfp4, block: 16x16}}\n" + rule("{match: a, forward: {w: {rotate: 16}}}"),
                 "r.yaml:3:30: forward.w: square blocks are rotated");
  expect_refused("forward: nvfp4\ngrad_input: {w: {format: nvfp4, from: saved}}\n" + rule("{match: a, forward: bf16}"),
                 "r.yaml:4:16: grad_input.w is made from the saved forward operand, which is not quantised");
}

TEST(RecipeFile, RefusesBadSwitches) {
  expect_refused("switch: {to: bf16}", "r.yaml:1:9: a switch without \"at\"");
  expect_refused("switch: bf16", "r.yaml:1:9: \"switch\" must be a mapping");
  expect_refused("switch: {at: 0}", "r.yaml:1:14: \"0\" is not a share of the run");
  expect_refused("switch: {at: 1.01}", "r.yaml:1:14: \"1.01\" is not a share of the run");
  expect_refused("switch: {at: 0.5, gemms: backwards}", "r.yaml:1:26: \"backwards\" is not a value of \"gemms\" (did");
  expect_refused("switch: {at: 0.5, too: bf16}", "r.yaml:1:19: unknown key \"switch.too\" (did you mean");
}

}  // namespace
}  // namespace nibble::test
