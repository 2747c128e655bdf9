// Compares the bias with FP64: exact sums, and the gradient as a sum over tokens.
#include "model/ops/bias.h"

#include "model/ops_support.h"

namespace nibble {
namespace {

using namespace test;

struct Problem {
  size_t tokens;
  size_t features;
  Values rows = random_values(1, tokens* features, 3);
  Values bias = random_values(2, features);
  Values grad_bias = random_values(3, features);  // before the call
};

// Rows are a multiple of the vectors' 32 elements and not; tokens are more than ranges, and fewer.
const std::vector<Problem>& problems() {
  static const std::vector<Problem> all = {{1, 1}, {3, 7}, {5, 16}, {40, 96}, {97, 133}, {70, 515}};
  return all;
}

template <class T>
std::vector<T> sum(const Problem& problem) {
  auto rows = stored<T>(problem.rows);
  auto bias = stored<T>(problem.bias);
  const auto features = static_cast<int64_t>(problem.features);
  add_bias(view(rows, {static_cast<int64_t>(problem.tokens), features}), view(bias, {features}));
  return rows;
}

template <class T>
std::vector<float> gradient(const Problem& problem) {
  auto rows = stored<T>(problem.rows);
  auto grad_bias = stored<float>(problem.grad_bias);
  const auto features = static_cast<int64_t>(problem.features);
  // Old contents of the workspace must not matter.
  std::vector<float> workspace(static_cast<size_t>(token_ranges) * problem.features, std::nanf(""));
  bias_backward({.grad_output = view(rows, {static_cast<int64_t>(problem.tokens), features}),
                 .grad_bias = view(grad_bias, {features}),
                 .workspace = view(workspace, {token_ranges, features})});
  return grad_bias;
}

TEST(Bias, SumsAreRoundedOnce) {
  for (const Problem& problem : problems()) {
    const std::vector<float> wide = sum<float>(problem);
    for (size_t i = 0; i < wide.size(); ++i) {
      ASSERT_EQ(wide[i], static_cast<float>(problem.rows[i] + problem.bias[i % problem.features])) << i;
    }
    expect_rounded(sum<BFloat16>(problem), wide, "sum");
  }
}

TEST(Bias, GradientIsTheSumOverTokens) {
  for (const Problem& problem : problems()) {
    Values expected = problem.grad_bias;
    for (size_t i = 0; i < problem.rows.size(); ++i) expected[i % problem.features] += problem.rows[i];
    const double tokens = static_cast<double>(problem.tokens);
    expect_near(widened(gradient<float>(problem)), expected, tokens * unit_roundoff * (1 + 3 * tokens), "gradient");
    EXPECT_EQ(gradient<BFloat16>(problem), gradient<float>(problem));
  }
}

TEST(Bias, GradientIsFormedFromZeroAndAddedOnce) {
  for (const Problem& problem : problems()) {
    Problem from_zero = problem;
    from_zero.grad_bias.assign(problem.features, 0);
    const std::vector<float> alone = gradient<float>(from_zero);
    const std::vector<float> added = gradient<float>(problem);
    for (size_t i = 0; i < alone.size(); ++i) EXPECT_EQ(added[i], static_cast<float>(problem.grad_bias[i]) + alone[i]);
  }
}

TEST(Bias, ThreadsChangeNoBit) {
  for (const Problem& problem : problems()) {
    expect_same_for_any_threads(
        [&] { return bytes_of(sum<BFloat16>(problem)) + bytes_of(gradient<BFloat16>(problem)); });
  }
}

}  // namespace
}  // namespace nibble
