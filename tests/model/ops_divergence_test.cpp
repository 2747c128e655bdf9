// Compares the divergence of two softmax distributions with FP64.
#include "model/ops/loss/divergence.h"

#include <cmath>
#include <limits>

#include "model/ops_support.h"

namespace nibble {
namespace {

using namespace test;

std::vector<double> computed(std::vector<float> p, std::vector<float> q, int64_t tokens) {
  const int64_t vocab = static_cast<int64_t>(p.size()) / tokens;
  std::vector<float> sums(static_cast<size_t>(tokens * 3));
  divergence_sums(
      {.p = view(p, {tokens, vocab}), .q = view(q, {tokens, vocab}), .sums = view(sums, {tokens, int64_t{3}})});
  return divergences(view(sums, {tokens, int64_t{3}}));
}

double log_of_sum(const float* row, size_t vocab) {
  double sum = 0;
  for (size_t i = 0; i < vocab; ++i) sum += std::exp(static_cast<double>(row[i]));
  return std::log(sum);
}

double reference(const float* p, const float* q, size_t vocab) {
  const double log_p = log_of_sum(p, vocab);
  const double log_q = log_of_sum(q, vocab);
  double divergence = 0;
  for (size_t i = 0; i < vocab; ++i) {
    const double of_p = static_cast<double>(p[i]) - log_p;
    divergence += std::exp(of_p) * (of_p - (static_cast<double>(q[i]) - log_q));
  }
  return divergence;
}

// An exponential is off by one ulp and by the rounding of its argument, at most 16, and the sums by the additions of
// one of 64 lanes: relative errors of A, B and D, of which D is at most the largest |a - b| times A. The difference a -
// b itself is off by four roundings of at most 16.
TEST(Divergence, AgreesWithFp64) {
  for (const size_t vocab : {1, 2, 31, 64, 97, 1000, 8208}) {
    constexpr size_t tokens = 5;
    const std::vector<float> p = stored<float>(random_values(1, tokens * vocab, 8));
    const std::vector<float> noise = stored<float>(random_values(2, tokens * vocab, 0.25));
    std::vector<float> q = p;
    for (size_t i = 0; i < q.size(); ++i) q[i] += noise[i];
    const std::vector<double> results = computed(p, q, tokens);
    const double relative = (static_cast<double>(vocab) / 64 + 16 + 8) * unit_roundoff;
    const double tolerance = 3 * relative * 1.0 + 4 * 16 * unit_roundoff;
    for (size_t i = 0; i < tokens; ++i) {
      EXPECT_NEAR(results[i], reference(&p[i * vocab], &q[i * vocab], vocab), tolerance) << vocab;
    }
    EXPECT_GE(results[0], vocab > 1 ? 1e-4 : 0.0);
  }
}

TEST(Divergence, IsExactlyZeroForEqualLogits) {
  for (const size_t vocab : {1, 33, 1000}) {
    const std::vector<float> logits = stored<float>(random_values(3, 4 * vocab, 30));
    for (const double divergence : computed(logits, logits, 4)) EXPECT_EQ(divergence, 0);
  }
}

TEST(Divergence, OfLargeAndFarLogits) {
  // P is certain of the first word, Q of the second by 20 nats.
  const std::vector<double> far = computed({1000, 0}, {0, 20}, 1);
  EXPECT_NEAR(far[0], 20 + std::log1p(std::exp(-20.0)), 1e-5);
  EXPECT_TRUE(std::isnan(computed({std::nanf(""), 0}, {0, 0}, 1)[0]));
  EXPECT_TRUE(std::isnan(computed({0, 0}, {0, std::nanf("")}, 1)[0]));
}

}  // namespace
}  // namespace nibble
