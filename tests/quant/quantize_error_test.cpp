// Checks how large the quantiser's error is, and that it has no bias where none is promised.
#include <gtest/gtest.h>

#include "tests/quant/nvidia_numbers.h"

namespace nibble::test {
namespace {

NoiseStream draw(uint32_t step) {
  return {2025, step, 0, 0, Purpose::grad_input_dy};
}

const Matrix& normal_1024() {
  static const Matrix matrix = normal_matrix(1024, 1024, 42);
  return matrix;
}

RoundingError error_on_normal(const OperandSpec& spec, uint32_t draws = 1) {
  return rounding_error(normal_1024(), spec, draws);
}

// NVIDIA's recipe on N(0,1) in BF16, 1024 x 1024, agrees within 0.5 %: the figures are published to three digits.
TEST(QuantizeError, MeanSquaredErrorOnNormalData) {
  for (const PublishedNvidia& published : published_nvidia()) {
    const double mse = 1e3 * error_on_normal(published.spec).mse.value;
    EXPECT_NEAR(mse, published.mse, 0.005 * published.mse) << published.method;
  }
}

// Rounding to nearest makes zeros of small elements. The figures are shares of 2^20 elements, published in percent with
// one digit. With log-normal sizes of rows they depend on the direction of the blocks. There only 1024 rows are
// independent, and fewer of those matter: the bound is three standard deviations from matrix to matrix.
TEST(QuantizeError, UnderflowOnNormalData) {
  for (const PublishedUnderflow& published : published_underflow()) {
    SCOPED_TRACE(published.data);
    const UnderflowFigures ours = underflow_of(published.sigma);
    const double tolerance = 0.05 + (published.sigma == 0 ? 0.1 : 3 * published.spread);
    EXPECT_NEAR(ours.rows, published.rows, 0.05 + 0.1);
    EXPECT_NEAR(ours.square, published.square, tolerance);
    if (published.columns == not_published) continue;
    EXPECT_NEAR(ours.columns, published.columns, tolerance);
  }
}

// The published stochastic rounding shrinks: the E4M3 scale is rounded to nearest, and elements that end above 6 are
// clipped. One draw over 2^20 elements has a standard deviation of sqrt(1.88e-2) / 1024 = 1.3e-4, and the exact
// expectation was published for another tensor: 3 * hypot(1.3e-4 / 2, 1e-4).
TEST(QuantizeError, PublishedStochasticRoundingHasItsKnownBias) {
  const RoundingError error = error_on_normal(nvfp4(BlockShape::row, Rounding::stochastic_published), 4);
  EXPECT_NEAR(error.shrinkage.value, 3.9e-3, 3.6e-4);
  const ClippedFigures clipped = clipped_by(nvfp4(BlockShape::row, Rounding::stochastic_published), normal_1024());
  // The shares are in percent, with standard deviations from tensor to tensor: the amax sets the phase of all scales.
  EXPECT_NEAR(clipped.blocks, 49.6, 3 * 0.95);
  EXPECT_NEAR(clipped.elements, 3.4, 3 * 0.07);
}

// Our stochastic rounding does not shrink. With 16 draws 3 standard deviations are 3 * sqrt(2.36e-2 / 16) / 1024 =
// 1.1e-4; the truncation of the published variant alone would be 6.5e-4.
TEST(QuantizeError, GuardedStochasticRoundingIsUnbiased) {
  const OperandSpec spec = nvfp4(BlockShape::row, Rounding::stochastic);
  EXPECT_NEAR(error_on_normal(spec, 16).shrinkage.value, 0, 1.15e-4);
  EXPECT_EQ(clipped_by(spec, normal_1024()).elements, 0);
}

// The mean over draws is the value, element by element, also in blocks whose scales are subnormal E4M3 numbers.
TEST(QuantizeError, GuardedStochasticRoundingIsUnbiasedInSmallBlocks) {
  std::vector<float> values = normal_matrix(64, 16, 4).values;
  for (size_t i = 0; i < values.size(); ++i) values[i] *= std::ldexp(1.0f, -static_cast<int>(i / 16) / 3);
  values[0] = 6;
  const Matrix matrix = Matrix(64, 16, values).rounded();
  constexpr uint32_t draws = 3000;
  std::vector<double> mean(values.size(), 0);
  std::vector<uint8_t> scales;
  float decode = 0;
  for (uint32_t step = 0; step < draws; ++step) {
    const OperandSpec spec = nvfp4(BlockShape::row, Rounding::stochastic);
    const Operand made = quantized({matrix.bf16(), false, spec, draw(step)});
    const std::vector<float> decoded = made.decoded();
    for (size_t i = 0; i < decoded.size(); ++i) mean[i] += decoded[i] / double{draws};
    scales = made.scales();
    decode = made.decode_scale();
  }
  bool subnormal_seen = false;
  for (size_t block = 0; block < scales.size(); ++block) {
    subnormal_seen = subnormal_seen || (scales[block] > 0 && scales[block] < 8);
    const double unit = double{e4m3_to_float(scales[block])} * decode;
    double deviation = 0;
    for (size_t i = block * 16; i < block * 16 + 16; ++i) {
      const double distance = std::fabs(mean[i] - matrix.values[i]) / unit;
      // The bound is for steps that are 2 wide: noise below 1 / sqrt(draws) = 0.018, 5 of those, and 1/256 for 8 random
      // bits.
      ASSERT_LE(distance, 5 * 0.0183 + 2.0 / 512) << "element " << i;
      deviation += (mean[i] - matrix.values[i]) / unit / 16;
    }
    ASSERT_LE(std::fabs(deviation), 5 * 0.0183 / 4 + 1e-3) << "block " << block;
  }
  EXPECT_TRUE(subnormal_seen);
}

}  // namespace
}  // namespace nibble::test
