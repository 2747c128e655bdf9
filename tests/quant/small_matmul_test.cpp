// Compares small_matmul with the scalar loop that its contract states, bit for bit, on every instruction-set level.
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "quant/gemm_reference.h"

namespace nibble {
namespace {

struct Strides {
  int64_t a_row, a_col, b_row, b_col;
};

void expect_small_contract(int64_t m, int64_t n, int64_t k, const Strides& strides, bool accumulate) {
  std::mt19937 generator(7);
  std::normal_distribution<float> normal;
  const int64_t c_stride = n + 3;
  std::vector<float> a(static_cast<size_t>(m * strides.a_row + k * strides.a_col) + 1);
  std::vector<float> b(static_cast<size_t>(k * strides.b_row + n * strides.b_col) + 1);
  std::vector<float> c(static_cast<size_t>(m * c_stride));
  for (auto* values : {&a, &b, &c}) {
    for (float& value : *values) value = normal(generator);
  }
  std::vector<float> expected(c);
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      float& sum = expected[static_cast<size_t>(i * c_stride + j)];
      if (!accumulate) sum = 0.0F;
      for (int64_t l = 0; l < k; ++l) {
        sum = std::fma(a[static_cast<size_t>(i * strides.a_row + l * strides.a_col)],
                       b[static_cast<size_t>(l * strides.b_row + j * strides.b_col)], sum);
      }
    }
  }
  for (const InstructionSet level : levels()) {
    std::vector<float> got(c);
    cpu::small_matmul_with(level, {a.data(), strides.a_row, strides.a_col, b.data(), strides.b_row, strides.b_col,
                                   got.data(), c_stride, m, n, k, accumulate});
    EXPECT_EQ(first_difference(got, expected), -1)
        << name_of(level) << " m=" << m << " n=" << n << " k=" << k << " accumulate=" << accumulate;
  }
}

TEST(SmallMatmul, EveryStridePatternEqualsTheScalarLoopBitForBit) {
  for (int64_t m : {1, 14, 65}) {
    for (int64_t n : {1, 32, 65}) {
      for (int64_t k : {0, 1, 33, 64, 300}) {
        const Strides patterns[] = {{k + 2, 1, n + 1, 1},
                                    {k + 2, 1, 1, k + 5},
                                    {1, m + 4, n + 1, 1},
                                    {1, m + 4, 1, k + 5},
                                    {2 * k + 3, 2, 2 * n + 3, 2}};
        for (const Strides& strides : patterns) {
          for (bool accumulate : {false, true}) expect_small_contract(m, n, k, strides, accumulate);
        }
      }
    }
  }
}

// The operands of one fused multiply-add have arbitrary bit patterns: subnormal results, cancellation, ties, overflow.
TEST(SmallMatmul, OneStepIsACorrectlyRoundedMultiplyAdd) {
  constexpr int64_t size = 300;
  std::mt19937 generator(11);
  for (int round = 0; round < 12; ++round) {
    std::vector<float> a(size);
    std::vector<float> b(size);
    std::vector<float> c(size * size);
    for (float& value : a) value = float_of_bits(static_cast<uint32_t>(generator()));
    for (float& value : b) value = float_of_bits(static_cast<uint32_t>(generator()));
    for (int64_t i = 0; i < size * size; ++i) {
      // The addends are near the product's size, near its rounding boundary, or arbitrary.
      const float exact = a[static_cast<size_t>(i / size)] * b[static_cast<size_t>(i % size)];
      const auto bits = static_cast<uint32_t>(generator());
      const float near = float_of_bits(bits_of(exact) + (bits % 5 - 2) * 0x800000U + (bits >> 30));
      c[static_cast<size_t>(i)] = i % 3 == 0 ? -near : i % 3 == 1 ? float_of_bits(bits) : near * 0x1p-24F;
    }
    std::vector<float> expected(c);
    for (int64_t i = 0; i < size * size; ++i) {
      float& sum = expected[static_cast<size_t>(i)];
      sum = std::fma(a[static_cast<size_t>(i / size)], b[static_cast<size_t>(i % size)], sum);
    }
    for (const InstructionSet level : levels()) {
      std::vector<float> got(c);
      cpu::small_matmul_with(level, {a.data(), 1, 1, b.data(), 1, 1, got.data(), size, size, size, 1, true});
      const int64_t index = first_difference(got, expected);
      EXPECT_EQ(index, -1) << name_of(level);
    }
  }
}

// The product lies just beside half a unit of the addend, too close for a sum in double to see: rounding twice would
// end on the wrong side. (1 + x)(1 - x) = 1 - x^2 with x = i 2^-23 differs from 1 by less than 2^-29.
TEST(SmallMatmul, AMultiplyAddThroughDoubleIsNotRoundedTwice) {
  constexpr int64_t size = 300;
  std::mt19937 generator(13);
  std::vector<float> a(size);
  std::vector<float> b(size);
  for (int64_t i = 0; i < size; ++i) {
    a[static_cast<size_t>(i)] = 1.0F + static_cast<float>(i + 1) * 0x1p-23F;
    b[static_cast<size_t>(i)] = 1.0F - static_cast<float>(i + 1) * 0x1p-23F;
  }
  std::vector<float> c(size * size);
  for (float& value : c) {  // unit 2: a number in +-[2^24, 2^25)
    value = float_of_bits(0x4B800000U | (static_cast<uint32_t>(generator()) & 0x807FFFFFU));
  }
  std::vector<float> expected(c);
  int64_t rounded_twice = 0;  // how many of these products tell the two apart
  for (int64_t i = 0; i < size; ++i) {
    for (int64_t j = 0; j < size; ++j) {
      float& sum = expected[static_cast<size_t>(i * size + j)];
      const float left = a[static_cast<size_t>(i)];
      const float right = b[static_cast<size_t>(j)];
      const double through_double = static_cast<double>(left) * static_cast<double>(right) + static_cast<double>(sum);
      sum = std::fma(left, right, sum);
      rounded_twice += static_cast<float>(through_double) != sum ? 1 : 0;
    }
  }
  EXPECT_GT(rounded_twice, 100);
  for (const InstructionSet level : levels()) {
    std::vector<float> got(c);
    cpu::small_matmul_with(level, {a.data(), 1, 1, b.data(), 1, 1, got.data(), size, size, size, 1, true});
    EXPECT_EQ(first_difference(got, expected), -1) << name_of(level);
  }
}

}  // namespace
}  // namespace nibble
