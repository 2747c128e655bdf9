// Measures MS-EDEN on inputs on which it is biased with one rotation, though it is unbiased on dense ones: the signs
// are all the randomness its element rounding sees, and few elements that are not zero have few rotated values. A
// second rotation removes the bias. Squared relative biases are from two independent halves of the draws.
#include <gtest/gtest.h>

#include "tests/quant/bias_numbers.h"

namespace nibble::test {
namespace {

constexpr uint32_t draws = 32;
constexpr double removed = 1e-4;

// The published vectors are few and not known, and their figures for two elements spread by a quarter: 9 to 15.
TEST(SparseInputs, OneRotationHasThePublishedBias) {
  constexpr double spread = 0.25;
  for (const PublishedSparse& published : published_sparse()) {
    const Matrix vectors = sparse_vectors(4096, published.nonzero, 5);
    for (const EdenCorrection correction : {EdenCorrection::per_16, EdenCorrection::post_hoc}) {
      const Estimate ours = rounding_error(vectors, ms_eden(correction), draws).bias_squared;
      SCOPED_TRACE(std::to_string(published.nonzero) + " " + std::string(name_of(correction)));
      EXPECT_GT(1e4 * ours.value, (1 - spread) * published.least - 3e4 * ours.error);
      EXPECT_LT(1e4 * ours.value, (1 + spread) * published.most + 3e4 * ours.error);
      EXPECT_LT(ours.error, 1e-4) << "too few draws to tell";
    }
  }
}

TEST(SparseInputs, TwoRotationsRemoveIt) {
  for (const PublishedSparse& published : published_sparse()) {
    const Matrix vectors = sparse_vectors(4096, published.nonzero, 5);
    const RoundingError ours = rounding_error(vectors, ms_eden(EdenCorrection::post_hoc, 0, 2), draws);
    SCOPED_TRACE(published.nonzero);
    EXPECT_LT(ours.bias_squared.value, removed);
    EXPECT_LT(ours.bias_squared.error, removed / 10) << "too few draws to tell";
    EXPECT_LT(1e3 * ours.mse.value, 9.5);  // no worse than on dense data
  }
}

// The mean is exactly 101/102 and nearly twice 0.1. One draw's element has a standard deviation of at most
// sqrt(0.0094/128) = 0.009: that of the mean of 8192 is 1e-4.
TEST(SparseInputs, OneLargeElementAndOneSmall) {
  for (const EdenCorrection correction : {EdenCorrection::per_16, EdenCorrection::post_hoc}) {
    SCOPED_TRACE(name_of(correction));
    const std::array<double, 2> mean = mean_of_concentrated(ms_eden(correction));
    EXPECT_NEAR(mean[0], 101.0 / 102, 5e-4);
    EXPECT_NEAR(mean[1], 0.198, 5e-4 + 5e-4);
  }
  const std::array<double, 2> twice = mean_of_concentrated(ms_eden(EdenCorrection::post_hoc, 0, 2));
  EXPECT_NEAR(twice[0], 1, 1e-3);
  EXPECT_NEAR(twice[1], 0.1, 1e-3);
}

// A weight gradient sums over tokens: few tokens with a gradient are a sparse input. The published floors are those of
// another layer, with two digits.
TEST(SparseInputs, FewTokensWithAGradient) {
  const auto bias = [](const OperandSpec& spec, int64_t tokens) {
    return bias_of_weight_gradient(spec, tokens, 512).value;
  };
  for (const EdenCorrection correction : {EdenCorrection::per_16, EdenCorrection::post_hoc}) {
    SCOPED_TRACE(name_of(correction));
    EXPECT_NEAR(bias(ms_eden(correction), 2), 1.6e-3, 0.15 * 1.6e-3);
    EXPECT_NEAR(bias(ms_eden(correction), 4), 1.9e-3, 0.15 * 1.9e-3);
    EXPECT_LT(bias(ms_eden(correction), 128), 2e-5);
  }
  EXPECT_LT(bias(ms_eden(EdenCorrection::post_hoc, 0, 2), 2), removed);
  EXPECT_LT(bias(ms_eden(EdenCorrection::post_hoc, 0, 2), 4), removed);
}

// Both operands of a GEMM are rotated alike: where their rows are nearly parallel, their rounding errors are too.
TEST(ParallelOperands, HaveThePublishedBias) {
  for (const PublishedParallel& published : published_parallel()) {
    SCOPED_TRACE(published.correlation);
    const Estimate eden = bias_of_parallel_operands(ms_eden(EdenCorrection::per_16), published.correlation, 16);
    EXPECT_NEAR(eden.value, published.bias, 3 * eden.error + 0.005 * published.bias);
    EXPECT_LT(eden.error, 1e-4) << "too few draws to tell";
    const Estimate stochastically = bias_of_parallel_operands(stochastic(), published.correlation, 16);
    EXPECT_NEAR(stochastically.value, 0, 3 * stochastically.error);
  }
}

}  // namespace
}  // namespace nibble::test
