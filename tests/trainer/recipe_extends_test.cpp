// Recipes that extend others, and the recipes that come with nibble.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>

#include "recipe_support.h"

namespace nibble::test {
namespace {

namespace fs = std::filesystem;

const std::string recipe_folder = NIBBLE_SOURCE_DIR "/configs/recipes";

class RecipeExtends : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "recipes_XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string write(const std::string& name, const std::string& text) const {
    const fs::path path = fs::path(folder_) / name;
    fs::create_directories(path.parent_path());
    std::ofstream(path) << text;
    return path.string();
  }
  Recipe load(const std::string& text) const { return load_recipe(write("mine.yaml", text)); }
  void expect_file_refused(const std::string& path, const std::string& message,
                           ExitCode code = ExitCode::bad_config) const {
    expect_refusal([&] { load_recipe(path); }, code, message);
  }

  std::string folder_;
};

constexpr const char* base_text = R"(name: base
forward:
  x: {format: nvfp4, scale: four_over_six}
  w: {format: nvfp4, block: 16x16}
grad_weight:
  dy: {format: nvfp4, round: ms_eden, correction: per_16, rotate: 128, signs: step}
  x: {format: nvfp4, rotate: 128, signs: step}
high_precision: [{match: head}]
layers: [{first_blocks: 1, forward: {w: {scale: search}}}]
switch: {at: 0.5}
)";

TEST_F(RecipeExtends, KeysAreWrittenOverTheBase) {
  write("base.yaml", base_text);
  const Recipe base = load_recipe(folder_ + "/base.yaml");
  Recipe expected = base;
  expected.name = "unnamed";
  expect_same(load("extends: base"), expected);
  expect_same(load("extends: base.yaml"), expected);
  expect_same(load("extends: ./base.yaml"), expected);
  expect_same(load("extends: " + folder_ + "/base.yaml"), expected);

  expected.name = "mine";
  expected.linear.forward_x.scale = ScaleRule::search;
  expected.linear.forward_x.outer = OuterScale::row_128;
  expected.linear.grad_input_dy = plain_operand(Format::nvfp4);
  expected.layers[0].linear.forward_x = expected.linear.forward_x;  // the base's rules change this recipe's operands
  expected.layers[0].linear.grad_input_dy = expected.linear.grad_input_dy;
  expect_same(load("forward: {x: {scale: search, outer: 1x128}}\ngrad_input: {dy: nvfp4}\nname: mine\nextends: base"),
              expected);
}

TEST_F(RecipeExtends, FormatStartsAnOperandAnew) {
  write("base.yaml", base_text);
  const Recipe recipe = load("extends: base\nforward: {w: {format: nvfp4, scale: search}}\ngrad_weight: bf16");
  EXPECT_EQ(recipe.linear.forward_w, (OperandSpec{.format = Format::nvfp4, .scale = ScaleRule::search}));
  EXPECT_EQ(recipe.linear.forward_x.scale, ScaleRule::four_over_six);
  EXPECT_EQ(recipe.linear.grad_weight_dy, OperandSpec{});
  EXPECT_EQ(recipe.linear.grad_weight_x, OperandSpec{});
}

TEST_F(RecipeExtends, NullTakesAKeyBack) {
  write("base.yaml", base_text);
  const Recipe recipe = load(
      "extends: base\nforward: {w: {block: ~}}\ngrad_weight:\n"
      "  dy: {rotate: ~, signs: ~, round: stochastic, correction: ~}\n  x: {rotate: ~, signs: ~}\n"
      "high_precision: ~\nlayers:\nswitch: ~");
  EXPECT_EQ(recipe.linear.forward_w, plain_operand(Format::nvfp4));
  EXPECT_EQ(recipe.linear.grad_weight_dy, (OperandSpec{.format = Format::nvfp4, .round = Rounding::stochastic}));
  EXPECT_EQ(recipe.linear.grad_weight_x, plain_operand(Format::nvfp4));
  EXPECT_TRUE(recipe.high_precision.empty());
  EXPECT_TRUE(recipe.layers.empty());
  EXPECT_FALSE(recipe.late_switch);
}

TEST_F(RecipeExtends, ListsTakeThePlaceOfTheBasesLists) {
  write("base.yaml", base_text);
  const Recipe recipe = load(
      "extends: base\nhigh_precision: [{last_blocks: 3, format: mxfp8_e4m3}]\n"
      "layers: [{match: qkv, format: fp8_e4m3}]\nswitch: {at: 0.9, gemms: backward}");
  ASSERT_EQ(recipe.high_precision.size(), 1U);
  EXPECT_EQ(recipe.high_precision[0].layers.last_blocks, 3);
  ASSERT_EQ(recipe.layers.size(), 1U);
  EXPECT_EQ(recipe.layers[0].linear, plain_recipe(Format::fp8_e4m3));
  EXPECT_EQ(recipe.late_switch->gemms, SwitchedGemms::backward);
}

// A base is looked for in the file's own directory first, then in all directories of load_recipe().
TEST_F(RecipeExtends, BasesAreLookedForBesideTheFile) {
  write("a/base.yaml", "name: near\nforward: mxfp4");
  write("b/base.yaml", "name: far\nforward: mxfp8_e4m3");
  write("b/other.yaml", "forward: fp8_e4m3");
  const std::string path = write("a/mine.yaml", "extends: base");
  EXPECT_EQ(load_recipe(path, folder_ + "/b").linear.forward_x.format, Format::mxfp4);
  write("a/mine.yaml", "extends: other");
  EXPECT_EQ(load_recipe(path, folder_ + "/b").linear.forward_x.format, Format::fp8_e4m3);
  write("a/mine.yaml", "extends: ../b/base.yaml");
  EXPECT_EQ(load_recipe(path).linear.forward_x.format, Format::mxfp8_e4m3);
  const YamlNode inside = parse_yaml("extends: base", "run.yaml");
  EXPECT_EQ(parse_recipe(inside, folder_ + "/b").linear.forward_x.format, Format::mxfp8_e4m3);
}

TEST_F(RecipeExtends, RefusesWhatIsNotThere) {
  const std::string path = write("mine.yaml", "name: mine\nextends: no_such_recipe");
  expect_file_refused(path, path + ":2:10: no recipe \"no_such_recipe\"", ExitCode::missing_input);
  write("mine.yaml", "extends: ./no_such.yaml");
  expect_file_refused(path, path + ":1:10: no file \"./no_such.yaml\"", ExitCode::missing_input);
  write("mine.yaml", "extends: [a, b]");
  expect_file_refused(path, path + ":1:10: \"extends\" needs a single value");
}

TEST_F(RecipeExtends, RefusesCircles) {
  const std::string self = write("self.yaml", "extends: self");
  expect_file_refused(self, self + ":1:1: recipes extend each other in a circle: " + self + " -> " + self);
  const std::string a = write("a.yaml", "extends: b");
  const std::string b = write("b.yaml", "extends: ../" + fs::path(folder_).filename().string() + "/a.yaml");
  expect_file_refused(a, b + ":1:1: recipes extend each other in a circle: " + a + " -> " + b + " -> " + a);
}

TEST_F(RecipeExtends, RefusesLongChains) {
  write("r0.yaml", "forward: nvfp4");
  for (int i = 1; i <= 9; ++i) write("r" + std::to_string(i) + ".yaml", "extends: r" + std::to_string(i - 1));
  EXPECT_EQ(load_recipe(folder_ + "/r8.yaml").linear.forward_x.format, Format::nvfp4);
  expect_file_refused(folder_ + "/r9.yaml", folder_ + "/r1.yaml:1:1: recipes extend each other more than 8 deep: " +
                                                folder_ + "/r9.yaml -> " + folder_ + "/r8.yaml");
}

TEST_F(RecipeExtends, ContradictionsAreJudgedOnTheWholeAndReportedWhereTheyAreWritten) {
  const std::string base = write("base.yaml", "forward: {w: {format: nvfp4, block: 16x16, rotate: 16}, x: nvfp4}");
  expect_file_refused(base, base + ":1:44: forward.w: square blocks are rotated");
  EXPECT_NO_THROW(load("extends: base\nforward: {w: {rotate: 0}}"));
  const std::string path = write("mine.yaml", "extends: base\nforward: {w: {scale: search}}");
  expect_file_refused(path, base + ":1:44: forward.w: square blocks are rotated");

  write("base.yaml", base_text);
  write("mine.yaml", "extends: base\nforward:\n  w: {scale: four_over_six, rotate: 32}");
  expect_file_refused(path, path + ":3:29: forward.w: square blocks are rotated");
  write("mine.yaml", "extends: base\ngrad_weight:\n  dy: {rotate: 32}");
  expect_file_refused(path, path + ":3:3: grad_weight: dy and x differ in rotate: 32 and 128");
  write("mine.yaml", "extends: base\ngrad_weight:\n  dy: {signs: fixed}");
  expect_file_refused(path, path + ":3:8: grad_weight.dy: round: ms_eden without drawn signs");
  write("mine.yaml", "extends: base\ngrad_weight:\n  dy: {round: nearest}");
  expect_file_refused(path, path + ":3:8: grad_weight.dy: a correction, but no ms_eden");
  try {
    load_recipe(path);
  } catch (const Error& error) {
    EXPECT_NE(error.remedy().find("`key: ~`"), std::string::npos) << error.remedy();
  }
}

TEST(ShippedRecipes, AreAllHereAndComeBack) {
  const std::set<std::string> expected = {"bf16",
                                          "fp4_all_the_way",
                                          "fp8",
                                          "fp8_delayed",
                                          "mxfp4",
                                          "mxfp8",
                                          "nibble",
                                          "nibble_backward_only",
                                          "nibble_forward_only",
                                          "nvfp4",
                                          "nvfp4_46",
                                          "nvfp4_backward_only",
                                          "nvfp4_forward_only",
                                          "nvfp4_guarded",
                                          "nvfp4_late_bf16",
                                          "quartet2",
                                          "quartet2_backward_only",
                                          "quartet2_double",
                                          "quartet2_forward_only",
                                          "tetrajet2",
                                          "tetrajet2_full"};
  std::set<std::string> found;
  for (const fs::directory_entry& entry : fs::directory_iterator(recipe_folder)) {
    const std::string name = entry.path().stem().string();
    SCOPED_TRACE(name);
    found.insert(name);
    const Recipe recipe = load_recipe(name, NIBBLE_SOURCE_DIR "/configs/runs");
    EXPECT_EQ(recipe.name, name);
    expect_comes_back(recipe);
    EXPECT_EQ(resolve(recipe, "blocks.2.mlp.down.weight", 2, 8), recipe.linear);
    if (name != "bf16") {
      EXPECT_EQ(resolve(recipe, "head.weight", -1, 8), plain_recipe(Format::bf16));
    }
  }
  EXPECT_EQ(found, expected);
}

LinearRecipe shipped(const std::string& name) {
  return load_recipe(recipe_folder + "/" + name + ".yaml").linear;
}

constexpr OperandSpec nearest{.format = Format::nvfp4};
constexpr OperandSpec tiles{.format = Format::nvfp4, .block = BlockShape::square};

TEST(ShippedRecipes, Nvidia) {
  OperandSpec gradient = nearest;
  gradient.round = Rounding::stochastic_published;
  OperandSpec rotated_gradient = gradient;
  OperandSpec rotated = nearest;
  rotated_gradient.rotate = rotated.rotate = 16;
  LinearRecipe expected{nearest, tiles, gradient, tiles, rotated_gradient, rotated};
  EXPECT_EQ(shipped("nvfp4"), expected);
  const Recipe nvfp4 = load_recipe("nvfp4", NIBBLE_SOURCE_DIR "/configs/runs");
  for (int block = 0; block < 8; ++block) {
    const bool exempt = block == 0 || block >= 6;
    EXPECT_EQ(resolve(nvfp4, "blocks.0.mlp.up.weight", block, 8), exempt ? plain_recipe(Format::bf16) : expected)
        << block;
  }

  expected.grad_input_dy.round = expected.grad_weight_dy.round = Rounding::stochastic;
  EXPECT_EQ(shipped("nvfp4_guarded"), expected);
  EXPECT_EQ(load_recipe(recipe_folder + "/nvfp4_guarded.yaml").high_precision.size(), 3U);
  expected.forward_x.scale = expected.forward_w.scale = expected.grad_input_w.scale = ScaleRule::four_over_six;
  EXPECT_EQ(shipped("nvfp4_46"), expected);

  const Recipe late = load_recipe(recipe_folder + "/nvfp4_late_bf16.yaml");
  EXPECT_EQ(late.linear, nvfp4.linear);
  EXPECT_EQ(switch_step(late, 200), 164U);
  EXPECT_EQ(switched(late).linear.forward_w, OperandSpec{});
  EXPECT_EQ(switched(late).linear.grad_weight_dy, nvfp4.linear.grad_weight_dy);
}

TEST(ShippedRecipes, Quartet2) {
  const OperandSpec forward{.format = Format::nvfp4, .scale = ScaleRule::four_over_six};
  OperandSpec gradient{.format = Format::nvfp4,
                       .round = Rounding::ms_eden,
                       .correction = EdenCorrection::post_hoc_published,
                       .rotate = 128,
                       .signs = Signs::micro_batch};
  OperandSpec saved = gradient;
  saved.from = Source::saved;
  EXPECT_EQ(shipped("quartet2"), (LinearRecipe{forward, forward, gradient, saved, gradient, saved}));
  const OperandSpec plain;
  EXPECT_EQ(shipped("quartet2_backward_only"), (LinearRecipe{plain, plain, gradient, gradient, gradient, gradient}));
  OperandSpec plain_saved;
  plain_saved.from = Source::saved;
  EXPECT_EQ(shipped("quartet2_forward_only"), (LinearRecipe{forward, forward, plain, plain_saved, plain, plain_saved}));
  gradient.rotations = saved.rotations = 2;
  EXPECT_EQ(shipped("quartet2_double"), (LinearRecipe{forward, forward, gradient, saved, gradient, saved}));
}

TEST(ShippedRecipes, Nibble) {
  OperandSpec input{
      .format = Format::nvfp4, .round = Rounding::ms_eden, .rotate = 128, .rotations = 2, .signs = Signs::step};
  OperandSpec weight = input;
  weight.signs = Signs::micro_batch;
  OperandSpec input_saved = input;
  OperandSpec weight_saved = weight;
  input_saved.from = weight_saved.from = Source::saved;
  const OperandSpec x{.format = Format::nvfp4, .scale = ScaleRule::four_over_six};
  const OperandSpec w{.format = Format::nvfp4, .scale = ScaleRule::search};
  EXPECT_EQ(shipped("nibble"), (LinearRecipe{x, w, input, input_saved, weight, weight_saved}));
}

TEST(ShippedRecipes, OtherPublishedOnes) {
  const OperandSpec stochastic{.format = Format::nvfp4, .round = Rounding::stochastic};
  EXPECT_EQ(shipped("fp4_all_the_way"),
            (LinearRecipe{nearest, nearest, stochastic, stochastic, stochastic, stochastic}));
  EXPECT_EQ(shipped("bf16"), plain_recipe(Format::bf16));
  EXPECT_EQ(shipped("mxfp8"), plain_recipe(Format::mxfp8_e4m3));

  const OperandSpec e4m3{.format = Format::fp8_e4m3};
  const OperandSpec e5m2{.format = Format::fp8_e5m2};
  LinearRecipe fp8{e4m3, e4m3, e5m2, e4m3, e5m2, e4m3};
  EXPECT_EQ(shipped("fp8"), fp8);
  for (OperandSpec* spec : {&fp8.forward_x, &fp8.forward_w, &fp8.grad_input_dy, &fp8.grad_input_w, &fp8.grad_weight_dy,
                            &fp8.grad_weight_x}) {
    spec->history = 16;
  }
  EXPECT_EQ(shipped("fp8_delayed"), fp8);

  const OperandSpec quest{.format = Format::mxfp4, .scale = ScaleRule::rms, .rotate = 32};
  const OperandSpec noisy{
      .format = Format::mxfp4, .round = Rounding::stochastic, .rotate = 32, .signs = Signs::micro_batch};
  EXPECT_EQ(shipped("mxfp4"), (LinearRecipe{quest, quest, noisy, noisy, noisy, noisy}));

  const OperandSpec forward{.format = Format::nvfp4, .outer = OuterScale::row_128};
  const OperandSpec gradient{.format = Format::nvfp4,
                             .round = Rounding::stochastic,
                             .outer = OuterScale::row_128,
                             .rotate = 32,
                             .signs = Signs::micro_batch};
  OperandSpec saved = gradient;
  saved.from = Source::saved;
  EXPECT_EQ(shipped("tetrajet2"), (LinearRecipe{forward, forward, gradient, saved, gradient, saved}));
  OperandSpec short_gradient = gradient;
  OperandSpec short_saved = saved;
  short_gradient.rotate = short_saved.rotate = 16;
  const Recipe full = load_recipe(recipe_folder + "/tetrajet2_full.yaml");
  EXPECT_EQ(full.linear, (LinearRecipe{forward, forward, short_gradient, short_saved, short_gradient, short_saved}));
  EXPECT_EQ(full.outliers, OutlierRule());
  EXPECT_EQ(full.oscillation, OscillationRule());
}

TEST(ShippedRecipes, UnknownNameListsThePlaces) {
  try {
    load_recipe("no_such_recipe", "some/where");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::missing_input);
    EXPECT_NE(error.remedy().find("some/where/../recipes"), std::string::npos);
  }
}

}  // namespace
}  // namespace nibble::test
