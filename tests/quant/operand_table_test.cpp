// Tests of the table of operand keys: every row works in every direction, and every rule can be broken.
#include "quant/recipe/operand_table.h"

#include <gtest/gtest.h>

#include <set>

#include "tests/quant/every_spec.h"

namespace nibble::test {
namespace {

TEST(OperandTable, EveryMemberHasARow) {
  // A spec of which every member differs from its default: each must be said by some row.
  OperandSpec spec = plain_operand(Format::nvfp4);
  for (const OperandKey& key : operand_keys()) {
    SCOPED_TRACE(key.key);
    EXPECT_FALSE(key.doc.empty());
    EXPECT_FALSE(key.default_text.empty());
    const OperandSpec before = spec;
    if (key.values.empty()) {
      key.set_number(key.largest, spec);
    } else {
      const std::vector<std::string_view> names = values_of(key, Format::nvfp4);
      ASSERT_GT(names.size(), 1U);
      ASSERT_TRUE(key.choose(names.back(), spec));
      EXPECT_EQ(key.text(spec), names.back());
    }
    EXPECT_NE(spec, before);
    OperandSpec restored = spec;
    key.reset(restored);
    EXPECT_EQ(restored, before);
  }
  EXPECT_EQ(spec.rotate, 128);
  EXPECT_EQ(spec.history, largest_history);
  OperandSpec reset = spec;
  for (const OperandKey& key : operand_keys()) key.reset(reset);
  EXPECT_EQ(reset, plain_operand(Format::nvfp4)) << "a member has no row";
  // The members of OperandSpec: another one needs a row, and then another number here.
  EXPECT_EQ(operand_keys().size() + 1, 13U);
}

TEST(OperandTable, TextsOfValuesLeadBackToThem) {
  size_t values = 0;
  for (const OperandKey& key : operand_keys()) {
    for (const Format format : all_values<Format>()) {
      for (const std::string_view name : values_of(key, format)) {
        OperandSpec spec = plain_operand(format);
        ASSERT_TRUE(key.choose(name, spec));
        if (traits_of(format).block == 0 && key.key == "block") continue;
        EXPECT_EQ(key.text(spec), name) << key.key;
        ++values;
      }
    }
    for (const OperandValue& value : key.values) EXPECT_FALSE(value.doc.empty()) << key.key << ": " << value.name;
  }
  EXPECT_GT(values, 150U);
  EXPECT_EQ(find_operand_key("rotations")->key, "rotations");
  EXPECT_EQ(find_operand_key("rotation"), nullptr);
}

TEST(OperandTable, DescriptionsSayWhatDiffers) {
  // Supported specs with different members have different descriptions.
  std::set<std::string> seen;
  for (OperandSpec spec : every_rule()) {
    for (const OperandSpec& rotated : every_rotation_of(spec)) {
      EXPECT_TRUE(seen.insert(describe(rotated)).second) << describe(rotated);
    }
  }
  EXPECT_GT(seen.size(), 100U);
  OperandSpec spec = plain_operand(Format::nvfp4);
  EXPECT_EQ(describe(spec), "nvfp4 1x16 nearest");
  spec.scale = ScaleRule::search;
  spec.round = Rounding::ms_eden;
  spec.range = 5;
  spec.rotate = 128;
  spec.rotations = 2;
  spec.signs = Signs::step;
  spec.from = Source::saved;
  EXPECT_EQ(describe(spec), "nvfp4 1x16 search ms_eden post_hoc range 5 rotate 128 x 2 signs step from saved");
}

TEST(OperandTable, FaultsOfARecipeNameTheOperands) {
  LinearRecipe recipe = plain_recipe(Format::nvfp4);
  EXPECT_FALSE(find_fault(recipe));
  recipe.grad_weight_x.rotate = 16;
  const auto rotation = find_fault(recipe);
  ASSERT_TRUE(rotation);
  EXPECT_EQ(rotation->what, "grad_weight: dy and x differ in rotate: 0 and 16");
  EXPECT_EQ(rotation->role, OperandRole::grad_weight_dy);
  EXPECT_EQ(rotation->other, OperandRole::grad_weight_x);
  recipe = plain_recipe(Format::nvfp4);
  recipe.forward_x = plain_operand(Format::bf16);
  recipe.grad_weight_x.from = Source::saved;
  const auto saved = find_fault(recipe);
  ASSERT_TRUE(saved);
  EXPECT_EQ(saved->what, "grad_weight.x is made from the saved forward operand, which is not quantised");
  recipe = plain_recipe(Format::nvfp4);
  recipe.grad_input_dy.history = 3;
  const auto alone = find_fault(recipe);
  ASSERT_TRUE(alone);
  EXPECT_EQ(alone->what, "grad_input.dy: nvfp4 does not know history");
  EXPECT_EQ(alone->remedy, "it is for fp8_e4m3 and fp8_e5m2");
}

}  // namespace
}  // namespace nibble::test
