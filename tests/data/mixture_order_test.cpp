// Every part of a mixture has its quota in every aligned run of samples, and samples are counted as they are dealt.
#include "data/mixture_order.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace nibble {
namespace {

const std::vector<std::vector<double>> mixtures{
    {1}, {0.7, 0.3}, {3, 1}, {0.5, 0.25, 0.25}, {1, 1, 1}, {0.9, 0.05, 0.03, 0.0199, 0.0001}, {1e-6, 1, 1e-6}};

TEST(MixtureOrder, CountsAreThoseOfTheParts) {
  for (const std::vector<double>& weights : mixtures) {
    const MixtureOrder order(weights, 7);
    for (const uint64_t begin : {uint64_t{0}, uint64_t{65536 * 3 - 1000}, (uint64_t{1} << 40) + 12345}) {
      std::vector<uint64_t> counts(weights.size());
      for (size_t part = 0; part < weights.size(); ++part) counts[part] = order.taken(part, begin);
      for (uint64_t sample = begin; sample < begin + 3000; ++sample) {
        uint64_t sum = 0;
        for (size_t part = 0; part < weights.size(); ++part) {
          ASSERT_EQ(order.taken(part, sample), counts[part]) << sample;
          sum += counts[part];
        }
        ASSERT_EQ(sum, sample);
        ++counts[order.part_of(sample)];
      }
    }
  }
}

TEST(MixtureOrder, QuotasInEveryAlignedRun) {
  for (const std::vector<double>& weights : mixtures) {
    const MixtureOrder order(weights, 99);
    for (uint32_t bits = 0; bits <= 20; ++bits) {
      const uint64_t run = uint64_t{1} << bits;
      for (uint64_t i = 0; i < 50; ++i) {
        for (size_t part = 0; part < weights.size(); ++part) {
          const auto count = static_cast<double>(order.taken(part, (i + 1) * run) - order.taken(part, i * run));
          ASSERT_LT(std::abs(count - order.share(part) * static_cast<double>(run)), 1) << bits << " " << i;
        }
      }
    }
    for (uint64_t sample = 1; sample < 1'000'000; sample = sample * 5 / 4 + 1) {
      for (size_t part = 0; part < weights.size(); ++part) {
        const double exact = order.share(part) * static_cast<double>(sample);
        ASSERT_LT(std::abs(static_cast<double>(order.taken(part, sample)) - exact),
                  std::log2(static_cast<double>(sample)) + 1);
      }
    }
  }
}

// The order is drawn from the seed: two equal parts neither alternate, nor are two seeds alike.
TEST(MixtureOrder, TheOrderIsDrawn) {
  const MixtureOrder a(std::vector<double>{1, 1}, 1);
  const MixtureOrder b(std::vector<double>{1, 1}, 2);
  int repeated = 0;
  int different = 0;
  for (uint64_t sample = 0; sample < 10000; ++sample) {
    repeated += a.part_of(sample) == a.part_of(sample + 1) ? 1 : 0;
    different += a.part_of(sample) != b.part_of(sample) ? 1 : 0;
  }
  // In pairs the parts never repeat, from one pair to the next they do with probability 1/2: four standard deviations
  // of 5,000 draws are 141. The seeds' orders differ in each pair with probability 1/2, in both samples or in none.
  EXPECT_NEAR(repeated, 2500, 141);
  EXPECT_NEAR(different, 5000, 283);
}

// The bits of docs/formats.md.
TEST(MixtureOrder, KnownOrder) {
  const MixtureOrder order(std::vector<double>{0.7, 0.3}, 1234);
  std::vector<size_t> parts;
  for (uint64_t sample = 0; sample < 16; ++sample) parts.push_back(order.part_of(sample));
  EXPECT_EQ(parts, (std::vector<size_t>{0, 1, 0, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0}));
}

}  // namespace
}  // namespace nibble
