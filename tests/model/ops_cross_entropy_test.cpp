// Compares cross-entropy with FP64 and its gradient with finite differences, and tests logits at the limits of FP32.
#include "model/ops/loss/cross_entropy.h"

#include <cmath>
#include <limits>
#include <numeric>

#include "model/ops_support.h"

namespace nibble {
namespace {

using namespace test;

struct Problem {
  size_t tokens;
  size_t vocab;
  double bound = 8;
  double scale = 0.75;

  Values logits() const { return random_values(1, tokens * vocab, bound); }
  std::vector<int32_t> targets() const {
    std::vector<int32_t> result;
    for (size_t i = 0; i < tokens; ++i) result.push_back(static_cast<int32_t>(i * 7919 % vocab));
    return result;
  }
};

template <class T>
struct Result {
  double sum = 0;
  std::vector<float> losses;
  std::vector<T> gradient;
};

template <class T>
Result<T> run(std::vector<float> logits, std::vector<int32_t> targets, double scale, bool gradient = true) {
  const int64_t tokens = static_cast<int64_t>(targets.size());
  const int64_t vocab = static_cast<int64_t>(logits.size()) / tokens;
  Result<T> result;
  result.losses.resize(targets.size());
  result.gradient.resize(gradient ? logits.size() : 0);
  const Tensor grad_logits = gradient ? view(result.gradient, {tokens, vocab}) : Tensor();
  cross_entropy({view(logits, {tokens, vocab}), view(targets, {tokens}), grad_logits, static_cast<float>(scale),
                 view(result.losses, {tokens})});
  result.sum = sum_of_losses(view(result.losses, {tokens}));
  return result;
}

template <class T>
Result<T> run(const Problem& problem, bool gradient = true) {
  return run<T>(stored<float>(problem.logits()), problem.targets(), problem.scale, gradient);
}

// Returns the roundoffs of a sum of `vocab` exponentials over 16 lanes. Each exponential is off by two roundoffs and by
// the rounding of its argument, at most 2 * bound.
double relative_error(const Problem& problem) {
  return (static_cast<double>(problem.vocab) / 16 + 2 * problem.bound + 12) * unit_roundoff;
}

const std::vector<Problem>& problems() {
  static const std::vector<Problem> all = {{1, 1}, {3, 2}, {5, 15}, {9, 16}, {33, 1000}, {7, 4096}, {4, 4099, 60}};
  return all;
}

TEST(CrossEntropy, AgreesWithTheReference) {
  for (const Problem& problem : problems()) {
    const auto result = run<float>(problem);
    const Values logits = problem.logits();
    // The logarithm and the difference of logits add their own roundings.
    const double largest_loss = std::log(static_cast<double>(problem.vocab)) + 2 * problem.bound;
    const double tolerance = relative_error(problem) + 3 * largest_loss * unit_roundoff;
    expect_near(widened(result.losses), reference::cross_entropy(logits, problem.targets()), tolerance, "losses");
    const Values expected = reference::cross_entropy_backward(logits, problem.targets(), problem.scale);
    constexpr double smallest = 0x1p-125;  // exponentials below e^-86.98 are zero
    for (size_t i = 0; i < expected.size(); ++i) {
      // At the target one is subtracted; elsewhere the error is relative to the probability.
      const bool at_target = static_cast<int32_t>(i % problem.vocab) == problem.targets()[i / problem.vocab];
      const double magnitude = at_target ? problem.scale : std::abs(expected[i]);
      ASSERT_NEAR(static_cast<double>(result.gradient[i]), expected[i], relative_error(problem) * magnitude + smallest)
          << i;
    }
  }
}

TEST(CrossEntropy, GradientIsTheDerivative) {
  const Problem problem{6, 23, 3};
  const Values logits = problem.logits();
  const Values differences = finite_differences(logits, [&](const Values& at) {
    const Values losses = reference::cross_entropy(at, problem.targets());
    return problem.scale * std::accumulate(losses.begin(), losses.end(), 0.0);
  });
  expect_near(reference::cross_entropy_backward(logits, problem.targets(), problem.scale), differences, 1e-7,
              "reference");
  expect_near(widened(run<float>(problem).gradient), differences, relative_error(problem) * problem.scale + 1e-7,
              "FP32");
}

TEST(CrossEntropy, SumIsInTokenOrderInDouble) {
  const Problem problem{100, 17, 60};
  const auto result = run<float>(problem);
  double expected = 0;
  for (float loss : result.losses) expected += static_cast<double>(loss);
  EXPECT_EQ(result.sum, expected);
}

TEST(CrossEntropy, LossHasTheSameBitsWithoutGradient) {
  for (const Problem& problem : problems()) {
    const auto with = run<float>(problem);
    const auto without = run<float>(problem, false);
    EXPECT_EQ(bytes_of(with.losses), bytes_of(without.losses));
    EXPECT_EQ(with.sum, without.sum);
  }
}

TEST(CrossEntropy, GradientMayReplaceTheLogits) {
  for (const Problem& problem : problems()) {
    const auto expected = run<float>(problem);
    auto logits = stored<float>(problem.logits());
    auto targets = problem.targets();
    std::vector<float> losses(problem.tokens);
    const int64_t tokens = static_cast<int64_t>(problem.tokens);
    const Tensor matrix = view(logits, {tokens, static_cast<int64_t>(problem.vocab)});
    cross_entropy({matrix, view(targets, {tokens}), matrix, static_cast<float>(problem.scale), view(losses, {tokens})});
    EXPECT_EQ(bytes_of(logits), bytes_of(expected.gradient));
    EXPECT_EQ(bytes_of(losses), bytes_of(expected.losses));
  }
}

TEST(CrossEntropy, Bf16GradientIsFp32RoundedOnce) {
  for (const Problem& problem : problems()) {
    const auto narrow = run<BFloat16>(problem);
    const auto wide = run<float>(problem);
    expect_rounded(narrow.gradient, wide.gradient, "gradient");
    EXPECT_EQ(narrow.losses, wide.losses);
  }
}

TEST(CrossEntropy, EqualLogitsLoseTheLogarithmOfTheVocabulary) {
  const auto result = run<float>(std::vector<float>(4096, 123.0f), {17}, 1);
  EXPECT_NEAR(result.sum, std::log(4096.0), 2 * 9 * unit_roundoff);
  EXPECT_EQ(result.gradient[0], 1.0f / 4096);
  EXPECT_EQ(result.gradient[17], 1.0f / 4096 - 1);
}

TEST(CrossEntropy, ExtremeLogits) {
  constexpr float huge = 3e38f;
  const auto certain = run<float>({huge, -huge, -huge}, {0}, 1);
  EXPECT_EQ(certain.sum, 0);
  EXPECT_EQ(certain.gradient, (std::vector<float>{0, 0, 0}));
  const auto wrong = run<float>({1e5f, -1e5f, 0}, {1}, 1);
  EXPECT_EQ(wrong.sum, 2e5);
  EXPECT_EQ(wrong.gradient, (std::vector<float>{1, -1, 0}));
  const auto tied = run<float>({1e5f, 1e5f}, {1}, 2);
  EXPECT_NEAR(tied.sum, std::log(2.0), 2 * unit_roundoff);
  EXPECT_EQ(tied.gradient, (std::vector<float>{1, -1}));
  const float infinity = std::numeric_limits<float>::infinity();
  const auto excluded = run<float>({0, -infinity}, {0}, 1);
  EXPECT_EQ(excluded.sum, 0) << "a logit of -infinity is a probability of 0";
}

TEST(CrossEntropy, TheLargestLogitIsFoundAnywhere) {
  for (int32_t place = 0; place < 211; ++place) {
    std::vector<float> logits(211, -1000.0f);
    logits[static_cast<size_t>(place)] = 1000.0f;
    ASSERT_EQ(run<float>(logits, {place}, 1).sum, 0) << place;
  }
}

TEST(CrossEntropy, NonFiniteLogitsAreNotHidden) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (float bad : {std::nanf(""), infinity}) {
    for (size_t place : {size_t{0}, size_t{20}, size_t{36}}) {
      std::vector<float> logits(2 * 37, 0.5f);
      logits[place] = bad;
      const auto result = run<float>(logits, {3, 4}, 1);
      EXPECT_TRUE(std::isnan(result.losses[0])) << bad << " at " << place;
      EXPECT_TRUE(std::isfinite(result.losses[1])) << "other tokens are not touched";
      EXPECT_TRUE(std::isnan(result.sum));
    }
  }
}

TEST(CrossEntropy, RefusesTargetsOutsideTheVocabulary) {
  EXPECT_THROW(run<float>({0, 1, 2}, {3}, 1), Error);
  EXPECT_THROW(run<float>({0, 1, 2}, {-1}, 1), Error);
}

TEST(CrossEntropy, ThreadsChangeNoBit) {
  const Problem problem{61, 777};
  expect_same_for_any_threads([&] {
    const auto result = run<BFloat16>(problem);
    return bytes_of(result.losses) + bytes_of(result.gradient) + bytes_of(std::vector<double>{result.sum});
  });
}

}  // namespace
}  // namespace nibble
