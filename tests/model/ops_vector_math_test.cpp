// Measures the errors of exp, log and sigmoid in units in the last place, over a dense sweep of all FP32 bit patterns,
// and tests special values. The FP64 functions of the C library are far more precise than these errors.
#include "model/ops/row/vector_math.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "model/ops/swiglu.h"

namespace nibble {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

// Returns the distance in units in the last place of FP32 at `exact`, also for subnormal numbers.
double ulps(float actual, double exact) {
  if (std::isnan(exact)) return std::isnan(actual) ? 0 : infinity;
  const float rounded = static_cast<float>(exact);
  if (std::isinf(rounded) || std::isinf(actual)) return rounded == actual ? 0 : infinity;
  int exponent = 0;
  std::frexp(exact, &exponent);
  const int unit = exact == 0 ? -149 : std::max(exponent - 24, -149);
  return std::abs(static_cast<double>(actual) - exact) / std::ldexp(1.0, unit);
}

template <class Actual, class Exact>
double worst_error(Actual&& actual, Exact&& exact, float lowest) {
  double worst = 0;
  constexpr uint64_t step = 251;  // prime: all low bits occur with all exponents
  for (uint64_t bits = 0; bits < (uint64_t{1} << 32); bits += step) {
    const float x = std::bit_cast<float>(static_cast<uint32_t>(bits));
    if (!(x < lowest)) worst = std::max(worst, ulps(actual(x), exact(static_cast<double>(x))));
  }
  return worst;
}

TEST(VectorMath, ExponentialIsWithinItsBound) {
  EXPECT_LT(worst_error([](float x) { return exp_f32(x); }, [](double x) { return std::exp(x); }, -86.98f), 1.0);
}

TEST(VectorMath, LogarithmIsWithinItsBound) {
  EXPECT_LT(worst_error([](float x) { return log_f32(x); }, [](double x) { return std::log(x); }, -infinity), 1.0);
}

TEST(VectorMath, SigmoidIsWithinItsBound) {
  auto exact = [](double x) { return 1 / (1 + std::exp(-x)); };
  EXPECT_LT(worst_error([](float x) { return sigmoid_f32(x); }, exact, -87.0f), 3.0);
}

TEST(VectorMath, SiluIsWithinItsBound) {
  auto exact = [](double x) { return std::isinf(x) ? std::nan("") : x / (1 + std::exp(-x)); };
  EXPECT_LT(worst_error([](float x) { return std::isinf(x) ? std::nanf("") : silu_f32(x); }, exact, -86.0f), 3.0);
  EXPECT_EQ(silu_f32(-1000.0f), 0.0f);
  EXPECT_EQ(silu_f32(1000.0f), 1000.0f);
  EXPECT_TRUE(std::isnan(silu_f32(std::nanf(""))));
}

TEST(VectorMath, ExponentialAtTheEdges) {
  EXPECT_EQ(exp_f32(0.0f), 1.0f);
  EXPECT_EQ(exp_f32(-0.0f), 1.0f);
  EXPECT_EQ(exp_f32(-infinity), 0.0f);
  EXPECT_FALSE(std::signbit(exp_f32(-infinity)));
  EXPECT_EQ(exp_f32(-3e38f), 0.0f);
  EXPECT_GT(exp_f32(-86.98f), 0.0f);
  EXPECT_EQ(exp_f32(-87.0f), 0.0f);
  EXPECT_EQ(exp_f32(-87.6f), 0.0f);
  EXPECT_EQ(exp_f32(-87.61f), 0.0f);
  EXPECT_EQ(exp_f32(-88.0f), 0.0f);
  EXPECT_LT(exp_f32(88.72f), infinity);
  EXPECT_EQ(exp_f32(88.73f), infinity);
  EXPECT_EQ(exp_f32(3e38f), infinity);
  EXPECT_EQ(exp_f32(infinity), infinity);
  EXPECT_TRUE(std::isnan(exp_f32(std::nanf(""))));
  EXPECT_TRUE(std::isnan(exp_f32(-std::nanf(""))));
}

TEST(VectorMath, LogarithmAtTheEdges) {
  EXPECT_EQ(log_f32(1.0f), 0.0f);
  EXPECT_EQ(log_f32(0.0f), -infinity);
  EXPECT_EQ(log_f32(-0.0f), -infinity);
  EXPECT_EQ(log_f32(infinity), infinity);
  EXPECT_TRUE(std::isnan(log_f32(-1.0f)));
  EXPECT_TRUE(std::isnan(log_f32(-infinity)));
  EXPECT_TRUE(std::isnan(log_f32(std::nanf(""))));
}

TEST(VectorMath, SigmoidAtTheEdges) {
  EXPECT_EQ(sigmoid_f32(0.0f), 0.5f);
  EXPECT_EQ(sigmoid_f32(infinity), 1.0f);
  EXPECT_EQ(sigmoid_f32(-infinity), 0.0f);
  EXPECT_TRUE(std::isnan(sigmoid_f32(std::nanf(""))));
}

// The library's vectorised loops give the bits of the scalar function, which makes results independent of the machine.
TEST(VectorMath, VectorisedLoopsHaveTheSameBits) {
  std::vector<float> gates;
  for (uint64_t bits = 0; bits < (uint64_t{1} << 32); bits += 100003) {
    const float value = std::bit_cast<float>(static_cast<uint32_t>(bits));
    if (std::isfinite(value)) gates.push_back(value);
  }
  const size_t features = gates.size();
  const int64_t width = static_cast<int64_t>(features);
  std::vector<float> gate_up = gates;
  gate_up.resize(2 * features, 1.0f);
  std::vector<float> output(features);
  swiglu_forward(
      {tensor_of(std::span<float>(gate_up), {1, 2 * width}), tensor_of(std::span<float>(output), {1, width})});
  for (size_t i = 0; i < features; ++i) {
    ASSERT_EQ(std::bit_cast<uint32_t>(output[i]), std::bit_cast<uint32_t>(silu_f32(gates[i]))) << gates[i];
  }
}

}  // namespace
}  // namespace nibble
