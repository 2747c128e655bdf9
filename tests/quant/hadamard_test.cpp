#include "quant/hadamard.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <vector>

#include "tests/quant/operand_fixture.h"

namespace nibble::test {
namespace {

double entry(unsigned row, unsigned column) {
  const unsigned flips = (hadamard_sign_mask >> row & 1u) + static_cast<unsigned>(std::popcount(row & column));
  return flips % 2 == 0 ? 0.25 : -0.25;
}

TEST(Hadamard, SignsAreThePublishedOnes) {
  const int signs[] = {1, 1, 1, -1, 1, -1, -1, -1, -1, -1, -1, 1, -1, 1, -1, -1};
  for (int row = 0; row < 16; ++row)
    EXPECT_EQ(hadamard_factor(row, hadamard_sign_mask), 0.25f * static_cast<float>(signs[row]));
}

TEST(Hadamard, MatrixEntries) {
  for (unsigned row = 0; row < 16; ++row) {
    float unit[16] = {};
    unit[row] = 1;
    rotate_16(unit, hadamard_sign_mask);
    for (unsigned column = 0; column < 16; ++column)
      ASSERT_EQ(unit[column], entry(row, column)) << row << " " << column;
  }
}

TEST(Hadamard, MatrixIsOrthogonal) {
  for (unsigned a = 0; a < 16; ++a) {
    for (unsigned b = 0; b < 16; ++b) {
      double product = 0;
      for (unsigned column = 0; column < 16; ++column) product += entry(a, column) * entry(b, column);
      ASSERT_EQ(product, a == b ? 1.0 : 0.0);
    }
  }
}

// The scaling by 1/4 comes first, and is exact down to the smallest BF16 number; the sums of a few of those are, too.
TEST(Hadamard, SubnormalInputsAreExact) {
  const float smallest = to_float(BFloat16{1});
  float values[16] = {};
  values[0] = smallest;
  values[1] = -3 * smallest;
  rotate_16(values, hadamard_sign_mask);
  EXPECT_EQ(double{values[0]}, -0.5 * double{smallest});
  EXPECT_EQ(double{values[1]}, double{smallest});
}

// The FP32 sums agree with exact ones after rounding to BF16 on the data of the published digests.
TEST(Hadamard, RoundsAsTheExactSumDoes) {
  const Matrix input = golden_input(256, 1024);
  for (size_t at = 0; at < input.values.size(); at += 16) {
    float rotated[16];
    std::copy_n(input.values.begin() + static_cast<std::ptrdiff_t>(at), 16, rotated);
    rotate_16(rotated, hadamard_sign_mask);
    for (unsigned column = 0; column < 16; ++column) {
      double sum = 0;
      for (unsigned row = 0; row < 16; ++row) sum += entry(row, column) * input.values[at + row];
      ASSERT_EQ(to_float(bf16_nearest(rotated[column])), to_float(bf16_nearest_once(sum)));
    }
  }
}

}  // namespace
}  // namespace nibble::test
