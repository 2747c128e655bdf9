// Compares RMS norm with FP64, and its gradient with finite differences.
#include "model/ops/norm/rms_norm.h"

#include <cmath>

#include "model/ops_support.h"

namespace nibble {
namespace {

using namespace test;

constexpr double epsilon = 0x1p-10;  // exact in FP32

struct Problem {
  size_t tokens;
  size_t features;
  Values input = random_values(1, tokens* features, 3);
  Values weight = random_values(2, features, 2);
  Values grad_output = random_values(3, tokens* features);
  Values grad_input = random_values(4, tokens* features);  // the values before the call
  Values grad_weight = random_values(5, features);
};

template <class T>
struct Result {
  std::vector<T> output, grad_input;
  std::vector<float> inverse_rms, grad_weight;
};

template <class T>
Result<T> run(const Problem& problem, bool continues = false) {
  const int64_t tokens = static_cast<int64_t>(problem.tokens);
  const int64_t features = static_cast<int64_t>(problem.features);
  auto input = stored<T>(problem.input);
  auto weight = stored<T>(problem.weight);
  auto grad_output = stored<T>(problem.grad_output);
  Result<T> result;
  result.output.resize(input.size());
  result.inverse_rms.resize(problem.tokens);
  result.grad_input = stored<T>(problem.grad_input);
  result.grad_weight = stored<float>(problem.grad_weight);
  // Old contents of the workspace must not matter.
  std::vector<float> workspace(static_cast<size_t>(token_ranges) * problem.features, std::nanf(""));
  rms_norm_forward({view(input, {tokens, features}), view(weight, {features}), epsilon,
                    view(result.output, {tokens, features}), view(result.inverse_rms, {tokens})});
  rms_norm_backward({view(grad_output, {tokens, features}), view(input, {tokens, features}), view(weight, {features}),
                     view(result.inverse_rms, {tokens}), view(result.grad_input, {tokens, features}),
                     view(result.grad_weight, {features}), view(workspace, {token_ranges, features}), continues});
  return result;
}

// Returns the roundoffs in the sum of `features` terms over 16 lanes, its square root and quotient, and a few products.
double relative_error(const Problem& problem) {
  return (static_cast<double>(problem.features) / 16 + 16) * unit_roundoff;
}

void expect_gradients(const Problem& problem, const reference::RmsNormGradients& expected, double extra) {
  const auto result = run<float>(problem);
  Values total_input = problem.grad_input;
  Values total_weight = problem.grad_weight;
  for (size_t i = 0; i < total_input.size(); ++i) total_input[i] += expected.input[i];
  for (size_t i = 0; i < total_weight.size(); ++i) total_weight[i] += expected.weight[i];
  double largest_inverse = 0;
  for (float inverse : result.inverse_rms) largest_inverse = std::max(largest_inverse, static_cast<double>(inverse));
  // |x| * inverse_rms <= sqrt(features), and the projection's terms are at most as large as the gradient's.
  const double normalized = largest(problem.input) * largest_inverse;
  const double addend = largest(problem.weight) * largest_inverse * (1 + normalized * normalized);
  expect_near(widened(result.grad_input), total_input, relative_error(problem) * (1 + addend) + extra, "grad_input");
  const double summands = static_cast<double>(problem.tokens);
  expect_near(widened(result.grad_weight), total_weight,
              (relative_error(problem) + summands * unit_roundoff) * (1 + summands * normalized) + extra,
              "grad_weight");
}

const std::vector<Problem>& problems() {
  static const std::vector<Problem> all = {{1, 1}, {3, 7}, {5, 16}, {40, 96}, {97, 133}, {70, 515}};
  return all;
}

TEST(RmsNorm, ForwardAgreesWithTheReference) {
  for (const Problem& problem : problems()) {
    const auto result = run<float>(problem);
    const Values expected = reference::rms_norm(problem.input, problem.weight, epsilon);
    for (size_t i = 0; i < expected.size(); ++i) {
      ASSERT_NEAR(static_cast<double>(result.output[i]), expected[i], relative_error(problem) * std::abs(expected[i]))
          << problem.tokens << " x " << problem.features << " at " << i;
    }
  }
}

TEST(RmsNorm, BackwardAgreesWithTheReference) {
  for (const Problem& problem : problems()) {
    expect_gradients(problem, reference::rms_norm_backward(problem.grad_output, problem.input, problem.weight, epsilon),
                     0);
  }
}

TEST(RmsNorm, GradientIsTheDerivative) {
  const Problem problem{7, 21};
  auto loss = [&](const Values& input, const Values& weight) {
    return inner_product(problem.grad_output, reference::rms_norm(input, weight, epsilon));
  };
  const reference::RmsNormGradients differences = {
      finite_differences(problem.input, [&](const Values& input) { return loss(input, problem.weight); }),
      finite_differences(problem.weight, [&](const Values& weight) { return loss(problem.input, weight); })};
  const auto expected = reference::rms_norm_backward(problem.grad_output, problem.input, problem.weight, epsilon);
  expect_near(expected.input, differences.input, 1e-7, "reference grad_input");
  expect_near(expected.weight, differences.weight, 1e-7, "reference grad_weight");
  expect_gradients(problem, differences, 1e-7);
}

TEST(RmsNorm, Bf16IsFp32RoundedOnce) {
  for (const Problem& problem : problems()) {
    const auto wide = run<float>(problem);
    const auto narrow = run<BFloat16>(problem);
    expect_rounded(narrow.output, wide.output, "output");
    expect_rounded(narrow.grad_input, wide.grad_input, "grad_input");
    EXPECT_EQ(narrow.inverse_rms, wide.inverse_rms);
    EXPECT_EQ(narrow.grad_weight, wide.grad_weight);
  }
}

// The gradient of the weight is formed from zero and then added.
TEST(RmsNorm, GradientOfTheWeightIsAddedOnce) {
  bool continuing_differs = false;
  for (const Problem& problem : problems()) {
    Problem from_zero = problem;
    from_zero.grad_weight.assign(problem.features, 0);
    const std::vector<float> sum = run<BFloat16>(from_zero).grad_weight;
    EXPECT_EQ(run<BFloat16>(from_zero, /*continues=*/true).grad_weight, sum);
    auto added = stored<float>(problem.grad_weight);
    for (size_t i = 0; i < sum.size(); ++i) added[i] += sum[i];
    EXPECT_EQ(run<BFloat16>(problem).grad_weight, added) << problem.tokens;
    continuing_differs = continuing_differs || run<BFloat16>(problem, /*continues=*/true).grad_weight != added;
  }
  EXPECT_TRUE(continuing_differs);
}

// Tokens in two calls are one sum if the second goes on.
TEST(RmsNorm, SumOfTheWeightGoesOn) {
  constexpr size_t features = 70;
  // Every token has a range of its own, so the ranges of both calls are those of one call.
  const Problem whole{30, features};
  Problem first = whole;
  Problem second = whole;
  first.tokens = 17;
  second.tokens = 13;
  for (Values Problem::*rows : {&Problem::input, &Problem::grad_output, &Problem::grad_input}) {
    (first.*rows).resize(17 * features);
    (second.*rows).erase((second.*rows).begin(), (second.*rows).begin() + 17 * features);
  }
  const std::vector<float> after_first = run<float>(first, /*continues=*/true).grad_weight;
  second.grad_weight.assign(after_first.begin(), after_first.end());
  EXPECT_EQ(run<float>(second, /*continues=*/true).grad_weight, run<float>(whole, /*continues=*/true).grad_weight);
}

TEST(RmsNorm, ZerosAreNormalisedToZeros) {
  Problem problem{2, 32};
  problem.input.assign(problem.input.size(), 0);
  const auto result = run<float>(problem);
  EXPECT_EQ(largest(widened(result.output)), 0);
  EXPECT_EQ(result.inverse_rms[0], 32.0f);  // 1 / sqrt(2^-10)
}

TEST(RmsNorm, ThreadsChangeNoBit) {
  for (const Problem& problem : problems()) {
    expect_same_for_any_threads([&] {
      const auto result = run<BFloat16>(problem);
      return bytes_of(result.output) + bytes_of(result.grad_input) + bytes_of(result.inverse_rms) +
             bytes_of(result.grad_weight);
    });
  }
}

}  // namespace
}  // namespace nibble
