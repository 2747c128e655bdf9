#include "quant/format/hadamard.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdlib>
#include <set>
#include <tuple>
#include <vector>

#include "tests/quant/operand_fixture.h"

namespace nibble::test {
namespace {

constexpr int all_points[] = {16, 32, 64, 128};

// Returns element [row, column] of diag(s) H, by its definition.
double entry(int points, const PhiloxBlock& signs, unsigned row, unsigned column) {
  const unsigned flips = (signs.word[row / 32] >> (row % 32) & 1u) + static_cast<unsigned>(std::popcount(row & column));
  return (flips % 2 == 0 ? 1.0 : -1.0) * (points == 16 ? 0.25 : 1.0);
}

std::vector<PhiloxBlock> sign_vectors(int points) {
  const SignStream stream{{7, 3, 1, 2, Purpose::hadamard_signs}, 2};
  return {PhiloxBlock{}, fixed_signs(points, 0), fixed_signs(points, 1), drawn_signs(stream, 0, 5)};
}

TEST(Hadamard, SignsOfSixteenPointsAreThePublishedOnes) {
  const int signs[] = {1, 1, 1, -1, 1, -1, -1, -1, -1, -1, -1, 1, -1, 1, -1, -1};
  for (int position = 0; position < 256; ++position) {
    const uint32_t negative = sign_of(fixed_signs(16, 0), position);
    EXPECT_EQ(hadamard_factor(negative, 16), 0.25f * static_cast<float>(signs[position % 16])) << position;
  }
}

// The words are the published answer of Philox4x32-10 for key 0 and counter 0.
TEST(Hadamard, FixedSignsOfMorePointsAreAPhiloxBlock) {
  const uint32_t words[] = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
  for (const int points : {32, 64, 128}) {
    int differences = 0;
    for (int position = 0; position < points; ++position) {
      const uint32_t negative = sign_of(fixed_signs(points, 0), position);
      ASSERT_EQ(negative, words[position / 32] >> (position % 32) & 1u);
      EXPECT_EQ(hadamard_factor(negative, points), negative != 0 ? -1.0f : 1.0f);
      differences += negative != sign_of(fixed_signs(points, 1), position) ? 1 : 0;
    }
    EXPECT_GT(differences, points / 4) << "the second rotation has signs of its own";
  }
}

TEST(Hadamard, MatrixEntries) {
  for (const int points : all_points) {
    for (const PhiloxBlock& signs : sign_vectors(points)) {
      for (unsigned row = 0; row < static_cast<unsigned>(points); ++row) {
        std::vector<float> unit(static_cast<size_t>(points));
        unit[row] = 1;
        rotate_points(unit.data(), points, signs);
        for (unsigned column = 0; column < static_cast<unsigned>(points); ++column)
          ASSERT_EQ(unit[column], entry(points, signs, row, column)) << points << ": " << row << " " << column;
      }
    }
  }
}

// Inner products are kept: exactly for 16 points, times the number of points for more. Small integers (multiples of 4
// for 16 points) make every sum exact.
TEST(Hadamard, RotationsAreOrthogonal) {
  for (const int points : all_points) {
    for (const PhiloxBlock& signs : sign_vectors(points)) {
      std::vector<std::vector<float>> vectors;
      for (int i = 0; i < points; ++i) {
        std::vector<float> values;
        for (int k = 0; k < points; ++k) values.push_back(static_cast<float>(4 * ((7 * i * k + 3 * k + i) % 9 - 4)));
        vectors.push_back(values);
      }
      std::vector<std::vector<float>> rotated = vectors;
      for (std::vector<float>& values : rotated) rotate_points(values.data(), points, signs);
      const auto inner = [](const std::vector<float>& a, const std::vector<float>& b) {
        double sum = 0;
        for (size_t k = 0; k < a.size(); ++k) sum += double{a[k]} * b[k];
        return sum;
      };
      for (const size_t i : {size_t{0}, size_t{1}, vectors.size() - 1}) {
        for (size_t j = 0; j < vectors.size(); ++j)
          ASSERT_EQ(inner(rotated[i], rotated[j]), inner(vectors[i], vectors[j]) * (points == 16 ? 1 : points));
      }
    }
  }
}

// The scaling by 1/4 comes first, and is exact down to the smallest BF16 number; the sums of a few of those are, too.
TEST(Hadamard, SubnormalInputsAreExact) {
  const float smallest = to_float(BFloat16{1});
  float values[16] = {};
  values[0] = smallest;
  values[1] = -3 * smallest;
  rotate_points(values, 16, fixed_signs(16, 0));
  EXPECT_EQ(double{values[0]}, -0.5 * double{smallest});
  EXPECT_EQ(double{values[1]}, double{smallest});
}

// The FP32 sums agree with exact ones after rounding to BF16 on the data of the published digests.
TEST(Hadamard, RoundsAsTheExactSumDoes) {
  const Matrix input = golden_input(256, 1024);
  const PhiloxBlock signs = fixed_signs(16, 0);
  for (size_t at = 0; at < input.values.size(); at += 16) {
    float rotated[16];
    std::copy_n(input.values.begin() + static_cast<std::ptrdiff_t>(at), 16, rotated);
    rotate_points(rotated, 16, signs);
    for (unsigned column = 0; column < 16; ++column) {
      double sum = 0;
      for (unsigned row = 0; row < 16; ++row) sum += entry(16, signs, row, column) * input.values[at + row];
      ASSERT_EQ(to_float(bf16_nearest(rotated[column])), to_float(bf16_nearest_once(sum)));
    }
  }
}

// Computes an element of 128 points by the recursive definition of the stages: the order of the FP32 sums is the
// contract.
float butterfly(const std::vector<float>& signed_values, int index, int stride) {
  if (stride == 0) return signed_values[static_cast<size_t>(index)];
  const float low = butterfly(signed_values, index & ~stride, stride / 2);
  const float high = butterfly(signed_values, index | stride, stride / 2);
  return (index & stride) == 0 ? low + high : low - high;
}

TEST(Hadamard, StagesAscend) {
  for (const int points : all_points) {
    const PhiloxBlock signs = fixed_signs(points, 0);
    std::vector<float> values;
    for (int k = 0; k < points; ++k) values.push_back(std::ldexp(static_cast<float>(k + 1) / 3, k * 7 % 23));
    std::vector<float> rotated = values;
    rotate_points(rotated.data(), points, signs);
    for (int k = 0; k < points; ++k) values[static_cast<size_t>(k)] *= hadamard_factor(sign_of(signs, k), points);
    for (int k = 0; k < points; ++k)
      ASSERT_EQ(rotated[static_cast<size_t>(k)], butterfly(values, k, points / 2)) << points << ": " << k;
  }
}

TEST(Hadamard, DrawnSignsAreThoseOfTheContract) {
  const SignStream signs{{0x123456789ABCDEFu, 11, 22, 33, Purpose::hadamard_signs}, 2};
  const PhiloxBlock drawn = drawn_signs(signs, 1, 0x87654321);
  const PhiloxBlock expected =
      philox4x32_10(PhiloxBlock{{0x87654321, 0x21 | 22 << 8, 11, 33 | 5 << 24}}, 0x89ABCDEF, 0x1234567);
  for (int word = 0; word < 4; ++word) EXPECT_EQ(drawn.word[word], expected.word[word]);
}

// Streams that differ in GEMM, rotation, chunk, tensor, step or micro-batch agree in half of their signs: within five
// standard deviations of so many coin tosses, and no block comes twice.
TEST(Hadamard, DrawnSignsOfDifferentStreamsAreUnrelated) {
  constexpr int chunks = 64;
  const SignStream base{{42, 3, 1, 2, Purpose::hadamard_signs}, 0};
  std::vector<std::pair<SignStream, int>> streams;
  for (uint32_t gemm = 0; gemm < 3; ++gemm) {
    for (int rotation = 0; rotation < 2; ++rotation) streams.push_back({SignStream{base.stream, gemm}, rotation});
  }
  for (NoiseStream other : {NoiseStream{43, 3, 1, 2, Purpose::hadamard_signs},
                            {42, 4, 1, 2, Purpose::hadamard_signs},
                            {42, 3, 2, 2, Purpose::hadamard_signs},
                            {42, 3, 1, 3, Purpose::hadamard_signs}}) {
    streams.push_back({SignStream{other, 0}, 0});
  }
  std::set<std::tuple<uint32_t, uint32_t, uint32_t, uint32_t>> seen;
  std::vector<std::vector<uint32_t>> words;
  for (const auto& [signs, rotation] : streams) {
    std::vector<uint32_t> all;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      const PhiloxBlock block = drawn_signs(signs, rotation, chunk);
      EXPECT_TRUE(seen.insert({block.word[0], block.word[1], block.word[2], block.word[3]}).second);
      all.insert(all.end(), block.word, block.word + 4);
    }
    words.push_back(all);
  }
  constexpr double tosses = 128.0 * chunks;
  for (size_t i = 0; i < words.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      int different = 0;
      for (size_t k = 0; k < words[i].size(); ++k) different += std::popcount(words[i][k] ^ words[j][k]);
      EXPECT_LT(std::fabs(different - tosses / 2), 5 * std::sqrt(tosses) / 2) << i << " and " << j;
    }
  }
}

}  // namespace
}  // namespace nibble::test
