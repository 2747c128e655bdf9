#include "data/sampler.h"

#include <gtest/gtest.h>

#include <vector>

namespace nibble {
namespace {

TEST(Sampler, EveryEpochIsAPermutation) {
  for (const uint64_t windows :
       {1, 2, 3, 4, 5, 6, 7, 15, 16, 17, 63, 64, 65, 100, 255, 256, 257, 1000, 4095, 4097, 65537}) {
    for (const uint64_t epoch : {0, 1, 7}) {
      const Sampler sampler(windows, 42, true);
      std::vector<bool> seen(windows);
      for (uint64_t i = 0; i < windows; ++i) {
        const uint64_t window = sampler.window(epoch * windows + i);
        ASSERT_LT(window, windows);
        ASSERT_FALSE(seen[window]) << windows << " windows, epoch " << epoch << ", sample " << i;
        seen[window] = true;
      }
    }
  }
}

// Every part gives one window: index * n <= count * window < (index + 1) * n.
TEST(SpreadWindow, TakesOneOutOfEachPart) {
  for (const uint64_t n : {1, 2, 3, 7, 12, 64, 97, 1000, 4801}) {
    for (const uint64_t count : {1, 2, 3, 5, 6, 7, 11, 12, 63, 64, 96, 97, 999, 1000, 4800}) {
      if (count > n) continue;
      for (uint64_t index = 0; index < count; ++index) {
        const uint64_t window = spread_window(n, count, index);
        ASSERT_LE(index * n, count * window) << n << " " << count << " " << index;
        ASSERT_LT(count * window, (index + 1) * n) << n << " " << count << " " << index;
      }
    }
  }
  EXPECT_EQ(spread_window(1000, 1, 0), 500U);
  for (uint64_t index = 0; index < 100; ++index) EXPECT_EQ(spread_window(100, 100, index), index);
}

TEST(SpreadWindow, IsExactBeyond64BitsOfProducts) {
  constexpr uint64_t n = (uint64_t{1} << 62U) + 3;
  constexpr uint64_t count = uint64_t{1} << 40U;
  EXPECT_GE(spread_window(n, count, count - 1), n - n / count - 1);
  EXPECT_LT(spread_window(n, count, count - 1), n);
  EXPECT_EQ(spread_window(n, n, n - 1), n - 1);
}

// With documents as long as a part, each of their 8 places is met as often as the others, give or take one in eight.
TEST(SpreadWindow, MeetsEveryPlaceOfDocumentsOfEqualLength) {
  constexpr uint64_t count = 512;
  std::vector<int> met(8);
  for (uint64_t index = 0; index < count; ++index) ++met[spread_window(8 * count, count, index) % 8];
  for (const int times : met) EXPECT_NEAR(times, 64, 8);
}

uint64_t matches(const Sampler& a, uint64_t first_a, const Sampler& b, uint64_t first_b) {
  uint64_t count = 0;
  for (uint64_t i = 0; i < a.windows(); ++i) count += a.window(first_a + i) == b.window(first_b + i) ? 1 : 0;
  return count;
}

// Two independent permutations agree in a Poisson(1) number of positions: more than 12 has a chance of 6e-11.
TEST(Sampler, EpochsAndSeedsDiffer) {
  const Sampler one(5000, 1, true);
  const Sampler two(5000, 2, true);
  const Sampler in_order(5000, 1, false);
  EXPECT_LE(matches(one, 0, one, 5000), 12U);
  EXPECT_LE(matches(one, 5000, one, 10000), 12U);
  EXPECT_LE(matches(one, 0, two, 0), 12U);
  EXPECT_LE(matches(one, 0, in_order, 0), 12U);
}

// The position of window 0 of 10 in 10000 epochs is uniform, so chi-square with 9 degrees of freedom exceeds 40 with a
// chance of 1e-5. The same holds for the pair of the first two windows of 4 (12 ordered pairs, 11 degrees of freedom).
TEST(Sampler, PositionsAreUniform) {
  const Sampler sampler(10, 3, true);
  std::vector<double> counts(10);
  for (uint64_t epoch = 0; epoch < 10000; ++epoch) counts[sampler.window(epoch * 10)] += 1;
  double chi = 0;
  for (const double count : counts) chi += (count - 1000) * (count - 1000) / 1000;
  EXPECT_LT(chi, 40.0);

  const Sampler four(4, 3, true);
  std::vector<double> pairs(16);
  for (uint64_t epoch = 0; epoch < 12000; ++epoch) pairs[four.window(epoch * 4) * 4 + four.window(epoch * 4 + 1)] += 1;
  chi = 0;
  for (size_t i = 0; i < 16; ++i) {
    if (i % 5 == 0) {
      EXPECT_EQ(pairs[i], 0.0);
    } else {
      chi += (pairs[i] - 1000) * (pairs[i] - 1000) / 1000;
    }
  }
  EXPECT_LT(chi, 45.0);
}

TEST(Sampler, InOrderWithoutShuffling) {
  const Sampler sampler(7, 9, false);
  for (uint64_t sample = 0; sample < 30; ++sample) {
    EXPECT_EQ(sampler.window(sample), sample % 7);
    EXPECT_EQ(sampler.epoch(sample), sample / 7);
  }
}

TEST(Sampler, HugeNumbers) {
  const Sampler sampler((1ULL << 62U) + 12345, 1, true);
  for (const uint64_t sample : {uint64_t{0}, uint64_t{1} << 61U, UINT64_MAX})
    EXPECT_LT(sampler.window(sample), sampler.windows());
  EXPECT_EQ(Sampler(1, 5, true).window(UINT64_MAX), 0U);
}

// Stopped runs rely on the order, so these values may never change. An independent program computed them from the
// description in the header.
TEST(Sampler, GoldenValues) {
  const Sampler sampler(1000, 1234, true);
  const std::vector<uint64_t> expected = {516, 879, 773, 793, 661, 355, 948, 263, 106, 727};
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(sampler.window(i), expected[i]) << i;
  const std::vector<uint64_t> second_epoch = {878, 673, 202, 617, 785, 595, 475, 124, 32, 297};
  for (size_t i = 0; i < second_epoch.size(); ++i) EXPECT_EQ(sampler.window(1000 + i), second_epoch[i]) << i;
}

}  // namespace
}  // namespace nibble
