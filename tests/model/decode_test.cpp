// Decoding: the logits of a text have the same bits whether it is taken in whole, token by token, or in any parts.
#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <vector>

#include "dist/device/thread_pool.h"
#include "model/decode_fixture.h"

namespace nibble::test {
namespace {

// Recipes whose forward operands are of every kind.
std::vector<Recipe> recipes() {
  std::vector<Recipe> all = {plain(Format::f32),      plain(Format::bf16),       plain(Format::nvfp4),
                             plain(Format::fp8_e4m3), plain(Format::mxfp8_e4m3), nvidia()};
  const auto add = [&all](const std::string& name, const OperandSpec& x, const OperandSpec& w) {
    Recipe recipe = plain(Format::bf16);
    recipe.name = name;
    recipe.linear.forward_x = x;
    recipe.linear.forward_w = w;
    all.push_back(recipe);
  };
  const OperandSpec rows{.format = Format::nvfp4};
  add("four over six", {.format = Format::nvfp4, .scale = ScaleRule::four_over_six},
      {.format = Format::nvfp4, .scale = ScaleRule::four_over_six});
  add("squares", {.format = Format::nvfp4, .block = BlockShape::square}, rows);
  add("outer scales", {.format = Format::nvfp4, .outer = OuterScale::row_128}, rows);
  add("rotated", {.format = Format::nvfp4, .rotate = 16}, {.format = Format::nvfp4, .rotate = 16});
  add("rotated, drawn", {.format = Format::nvfp4, .rotate = 128, .signs = Signs::step},
      {.format = Format::nvfp4, .rotate = 128, .signs = Signs::step});
  add("stochastic", {.format = Format::nvfp4, .round = Rounding::stochastic}, rows);
  add("mixed", rows, {.format = Format::bf16});
  return all;
}

TEST(Decode, EverySplitHasTheBitsOfTheWholeText) {
  for (const DType dtype : {DType::bf16, DType::f32}) {
    for (const Recipe& recipe : recipes()) {
      Decoding test(recipe, dtype);
      const std::vector<float> whole = test.decode({text_length});
      EXPECT_TRUE(same_bits(test.decode(std::vector<int64_t>(text_length, 1)), whole)) << recipe.name;
      EXPECT_TRUE(same_bits(test.decode({5, 1, 70, 1, 2, 81}), whole)) << recipe.name;
    }
  }
}

TEST(Decode, NormalisedHeadsAndBiasesChangeNoSplit) {
  for (const Recipe& recipe : {plain(Format::f32), plain(Format::bf16), nvidia()}) {
    Decoding test(recipe, DType::bf16, /*norms_heads=*/true);
    const std::vector<float> whole = test.decode({text_length});
    EXPECT_TRUE(same_bits(test.decode(std::vector<int64_t>(text_length, 1)), whole)) << recipe.name;
    EXPECT_TRUE(same_bits(test.decode({5, 1, 70, 1, 2, 81}), whole)) << recipe.name;
    const bool shares_scale = recipe.linear.forward_x.format == Format::nvfp4;
    EXPECT_NE(same_bits(test.whole_pass(), whole), shares_scale) << recipe.name;
  }
}

TEST(Decode, ThreadsChangeNoBit) {
  Decoding test(nvidia(), DType::bf16);
  const std::vector<float> one = test.decode({text_length});
  set_compute_threads(3);
  Decoding three(nvidia(), DType::bf16);
  EXPECT_TRUE(same_bits(three.decode({100, 30, 30}), one));
  set_compute_threads(1);
}

TEST(Decode, TokensThatAreTakenBackLeaveNothing) {
  Decoding test(nvidia(), DType::bf16);
  const std::vector<float> whole = test.decode({text_length});
  const auto cache = test.model().make_cache();
  test.take(*cache, 0, 40);
  test.take(*cache, 100, 17);  // others than those that follow
  EXPECT_EQ(cache->length(), 57);
  cache->truncate(40);
  EXPECT_TRUE(same_bits(test.take(*cache, 40, 9), test.part(whole, 40, 49)));
  cache->truncate(0);
  EXPECT_TRUE(same_bits(test.take(*cache, 0, 3), test.part(whole, 0, 3)));
  EXPECT_THROW(cache->truncate(4), Error);
}

// Where rows share nothing but their pass, decoding is what a pass over the micro-batch computes.
TEST(Decode, EqualsAWholePassWhereRowsShareNoScale) {
  for (const Format format : {Format::f32, Format::bf16, Format::mxfp8_e4m3}) {
    Decoding test(plain(format), DType::bf16);
    EXPECT_TRUE(same_bits(test.decode({70, 90}), test.whole_pass())) << name_of(format);
  }
  Decoding test(plain(Format::nvfp4), DType::bf16);
  EXPECT_FALSE(same_bits(test.decode({70, 90}), test.whole_pass())) << "a tensor scale is of all tokens";
}

// The noise of a token is a function of seed and position.
TEST(Decode, RoundingNoiseDependsOnThePosition) {
  Recipe recipe = plain(Format::bf16);
  recipe.linear.forward_x = {.format = Format::nvfp4, .round = Rounding::stochastic};
  Decoding test(recipe, DType::bf16);
  std::fill(test.tokens().begin(), test.tokens().end(), 7);
  const std::vector<float> logits = test.decode({1, 1});
  EXPECT_FALSE(same_bits(test.part(logits, 0, 1), test.part(logits, 1, 2)));
  test.context.seed += 1;
  EXPECT_FALSE(same_bits(test.part(test.decode({1}), 0, 1), test.part(logits, 0, 1)));
}

TEST(Decode, RefusesWhatItHasNoMemoryFor) {
  Decoding test(plain(Format::bf16), DType::bf16);
  const auto cache = test.model().make_cache();
  test.take(*cache, 0, text_length);
  EXPECT_THROW(test.take(*cache, 0, 1), Error) << "longer than the sequence";
  LanguageModel evaluation(decode_config(DType::bf16), plain(Format::bf16),
                           {.sequence_length = text_length, .training = false});
  const auto other = evaluation.make_cache();
  std::vector<int32_t> token = {1};
  EXPECT_THROW(evaluation.decode(tensor_of(std::span(token), {1}), *other, {}), Error);
}

}  // namespace
}  // namespace nibble::test
