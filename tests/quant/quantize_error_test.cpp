// How large the quantiser's error is, and that it has no bias where none is promised.
#include <gtest/gtest.h>

#include "tests/quant/operand_fixture.h"

namespace nibble::test {
namespace {

struct Error {
  double relative_mse = 0;  // |x - q|^2 / |x|^2
  double shrinkage = 0;     // <x, q> / <x, x> - 1
};

Error error_of(const std::vector<float>& exact, const std::vector<float>& quantised) {
  double squared_error = 0;
  double square = 0;
  double product = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    const double x = exact[i];
    const double q = quantised[i];
    squared_error += (x - q) * (x - q);
    square += x * x;
    product += x * q;
  }
  return {squared_error / square, product / square - 1};
}

NoiseStream draw(uint32_t step) {
  return {2025, step, 0, 0, Purpose::grad_input_dy};
}

const Matrix& normal_1024() {
  static const Matrix matrix = normal_matrix(1024, 1024, 42);
  return matrix;
}

Error error_on_normal(const OperandSpec& spec) {
  const Matrix& matrix = normal_1024();
  return error_of(matrix.values, quantized({matrix.bf16(), false, spec, draw(0)}).decoded());
}

// Published values (three digits) for N(0,1) in BF16, 1024 x 1024, within 0.5 %.
TEST(QuantizeError, MeanSquaredErrorOnNormalData) {
  const auto expect = [](const OperandSpec& spec, double published) {
    EXPECT_NEAR(error_on_normal(spec).relative_mse, published, 0.005 * published) << describe(spec);
  };
  expect(nvfp4(), 9.01e-3);
  expect(nvfp4(BlockShape::square), 1.24e-2);
  expect(nvfp4(BlockShape::row, Rounding::stochastic_published), 1.88e-2);
  expect(nvfp4(BlockShape::row, Rounding::stochastic), 2.36e-2);
}

TEST(QuantizeError, MeanSquaredErrorAfterRotation) {
  // The rotation is orthogonal: the error against the rotated data, which an unquantised rotation provides.
  const Matrix& matrix = normal_1024();
  const Operand made = quantized({matrix.bf16(), false, nvfp4(BlockShape::row, Rounding::nearest, 16), {}});
  std::vector<float> rotated = matrix.values;
  for (size_t at = 0; at < rotated.size(); at += 16) {
    double sums[16];
    for (unsigned c = 0; c < 16; ++c) {
      sums[c] = 0;
      for (unsigned r = 0; r < 16; ++r) {
        const bool negative = ((0xD7E8u >> r & 1u) + static_cast<unsigned>(__builtin_popcount(r & c))) % 2 != 0;
        sums[c] += (negative ? -0.25 : 0.25) * matrix.values[at + r];
      }
    }
    for (unsigned c = 0; c < 16; ++c) rotated[at + c] = static_cast<float>(sums[c]);
  }
  EXPECT_NEAR(error_of(rotated, made.decoded()).relative_mse, 9.02e-3, 0.005 * 9.02e-3);
}

// The published stochastic rounding shrinks: the E4M3 scale is rounded to nearest, and what ends above 6 is clipped.
// One draw over 2^20 elements has a standard deviation of sqrt(1.88e-2) / 1024 = 1.3e-4.
TEST(QuantizeError, PublishedStochasticRoundingHasItsKnownBias) {
  const Error error = error_on_normal(nvfp4(BlockShape::row, Rounding::stochastic_published));
  EXPECT_NEAR(error.shrinkage, -3.99e-3, 4e-4);
}

// Ours does not. 16 draws: 3 standard deviations are 3 * sqrt(2.36e-2 / 16) / 1024 = 1.1e-4; the truncation of the
// published variant alone would be -6.5e-4.
TEST(QuantizeError, GuardedStochasticRoundingIsUnbiased) {
  const Matrix& matrix = normal_1024();
  double shrinkage = 0;
  for (uint32_t step = 0; step < 16; ++step) {
    const OperandSpec spec = nvfp4(BlockShape::row, Rounding::stochastic);
    shrinkage += error_of(matrix.values, quantized({matrix.bf16(), false, spec, draw(step)}).decoded()).shrinkage / 16;
  }
  EXPECT_NEAR(shrinkage, 0, 1.15e-4);
}

// Element by element, in blocks whose scales are subnormal E4M3 numbers too: the mean over draws is the value.
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
      // Where steps are 2 wide: noise below 1 / sqrt(draws) = 0.018, 5 of those, and 1/256 for 8 random bits.
      ASSERT_LE(distance, 5 * 0.0183 + 2.0 / 512) << "element " << i;
      deviation += (mean[i] - matrix.values[i]) / unit / 16;
    }
    ASSERT_LE(std::fabs(deviation), 5 * 0.0183 / 4 + 1e-3) << "block " << block;
  }
  EXPECT_TRUE(subnormal_seen);
}

}  // namespace
}  // namespace nibble::test
