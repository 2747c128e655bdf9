// Compares errors, shrinkages and biases of every quantiser on data of known distribution with published_numbers.h.
//
// The mse must agree within 0.5 %: from tensor to tensor of 4 million normal deviates it varies by 0.1 % (standard
// deviation: the tensor's amax sets the phase of all its E4M3 scales), of 1 million by 0.15 %.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/quant/published_numbers.h"

namespace nibble::test {
namespace {

constexpr double tolerance = 0.005;

// The standard errors of the published figures: those of shrinkages, from tensor to tensor of this size; those of
// squared biases x 1e6, from two averages of 4 draws.
constexpr double published_shrinkage_error = 1e-4;
double published_bias_error(const OperandSpec& spec) {
  return spec.round == Rounding::stochastic ? 3 : 0.5;
}

const Matrix& normal_data() {
  static const Matrix matrix = normal_f32(512, 8192, 42);
  return matrix;
}

TEST(QuantizeNumbers, DeterministicRoundingOfNormalData) {
  for (const PublishedRounding& published : published_roundings()) {
    if (is_random(published.spec)) continue;
    SCOPED_TRACE(published.method);
    const RoundingError ours = rounding_error(normal_data(), published.spec, 1);
    EXPECT_NEAR(1e3 * ours.mse.value, published.mse, tolerance * published.mse);
    EXPECT_EQ(ours.bias_squared.value, ours.mse.value);
    if (published.shrinkage == not_published) continue;
    EXPECT_NEAR(ours.shrinkage.value, published.shrinkage,
                3 * std::hypot(ours.shrinkage.error, published_shrinkage_error));
  }
}

// The published biases of the unbiased quantisers are 0 within their noise: ours is compared with 0.
TEST(QuantizeNumbers, RandomRoundingOfNormalData) {
  for (const PublishedRounding& published : published_roundings()) {
    if (!is_random(published.spec)) continue;
    SCOPED_TRACE(published.method);
    const RoundingError ours = rounding_error(normal_data(), published.spec, 8);
    EXPECT_NEAR(1e3 * ours.mse.value, published.mse, tolerance * published.mse);
    const bool unbiased = published.bias_squared == 0;
    const double shrinkage_error = published.shrinkage == 0 ? 0 : published_shrinkage_error;
    EXPECT_NEAR(ours.shrinkage.value, published.shrinkage, 3 * std::hypot(ours.shrinkage.error, shrinkage_error));
    const double bias_error =
        std::hypot(1e6 * ours.bias_squared.error, unbiased ? 0 : published_bias_error(published.spec));
    EXPECT_NEAR(1e6 * ours.bias_squared.value, published.bias_squared, 3 * bias_error);
    EXPECT_LT(1e6 * ours.bias_squared.error, 10) << "too few draws to tell";
  }
}

// Our post hoc MS-EDEN in full FP32 with the range 6 and the ceiling 448 is the best of MS-EDEN, and unbiased, with one
// rotation and with two.
TEST(QuantizeNumbers, OurMsEdenIsUnbiasedAndNotWorse) {
  for (int rotations : {1, 2}) {
    SCOPED_TRACE(rotations);
    const RoundingError ours = rounding_error(normal_data(), ms_eden(EdenCorrection::post_hoc, 0, rotations), 8);
    EXPECT_NEAR(1e3 * ours.mse.value, 9.328, tolerance * 9.328);
    EXPECT_NEAR(ours.shrinkage.value, 0, 3 * ours.shrinkage.error);
    EXPECT_NEAR(1e6 * ours.bias_squared.value, 0, 3e6 * ours.bias_squared.error);
  }
}

TEST(QuantizeNumbers, ChoicesOfScaleOnOtherData) {
  for (const PublishedScaleRule& published : published_scale_rules()) {
    SCOPED_TRACE(published.data);
    const ScaleRuleErrors ours = scale_rule_errors(deviates(published.distribution, 1024, 1024, 2));
    EXPECT_NEAR(ours.six, published.six, tolerance * published.six);
    EXPECT_NEAR(ours.four_over_six, published.four_over_six, tolerance * published.four_over_six);
    EXPECT_NEAR(ours.search, published.search, tolerance * published.search);
    // The published share has two digits; 65536 blocks give a standard error of 0.002.
    EXPECT_NEAR(ours.share_of_four, published.share_of_four, 0.005 + 3 * 0.002);
  }
}

// With the ceiling 448 the scale of the block that holds the amax cannot grow by 6/4. This is ruinous on uniform data,
// where every block's maximum is near the amax.
TEST(QuantizeNumbers, FourOverSixNeedsRoomAboveTheLargestScale) {
  OperandSpec spec = with_scale(ScaleRule::four_over_six);
  spec.ceiling = 448;
  const Matrix uniform = deviates(Distribution::uniform, 1024, 1024, 1);
  EXPECT_NEAR(1e3 * rounding_error(uniform, spec, 1).mse.value, 10.0, tolerance * 10.0);
  EXPECT_NEAR(1e3 * rounding_error(normal_data(), spec, 1).mse.value, 7.55, tolerance * 7.55);
}

TEST(QuantizeNumbers, RowsOfManySizes) {
  for (const PublishedRows& published : published_rows()) {
    SCOPED_TRACE(published.method);
    const RowErrors ours = errors_of_rows(published.spec, is_random(published.spec) ? 4 : 1);
    EXPECT_NEAR(1e3 * ours.mse.value, published.mse, tolerance * published.mse);
    // The published figures come from no more rows than ours.
    EXPECT_NEAR(ours.shrinkage.value, published.shrinkage,
                3 * std::hypot(ours.shrinkage.error, published_shrinkage_error));
  }
}

TEST(QuantizeNumbers, RangesOfTheGrid) {
  const Matrix normal = normal_f32(512, 2048, 43);
  for (const PublishedRange& published : published_ranges()) {
    SCOPED_TRACE(published.factor);
    const RangeSpecs specs = specs_of_range(published.factor);
    const auto expect = [&](const OperandSpec& spec, double mse) {
      EXPECT_NEAR(1e3 * rounding_error(normal, spec, is_random(spec) ? 2 : 1).mse.value, mse, tolerance * mse);
    };
    expect(specs.nearest, published.nearest);
    expect(specs.per_16, published.per_16);
    expect(specs.per_128, published.per_128);
    expect(specs.post_hoc, published.post_hoc);
  }
}

}  // namespace
}  // namespace nibble::test
