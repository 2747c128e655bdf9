#include "quant/gemm/gemm_check.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "quant/gemm/gemm.h"
#include "quant/gemm_contract.h"

namespace nibble {
namespace {

constexpr Layout layouts[] = {{Format::f32},
                              {Format::bf16},
                              {Format::bf16, true},
                              {Format::nvfp4},
                              {Format::nvfp4, false, true},
                              {Format::nvfp4, false, false, true},
                              {Format::mxfp4},
                              {Format::mxfp8_e4m3},
                              {Format::fp8_e5m2}};

constexpr int64_t m = 200;
constexpr int64_t n = 530;

// One GEMM with its operands and an output of `dtype`.
struct Gemm {
  Operand a, b;
  std::vector<float> f32 = std::vector<float>(m * n, 0.75F);
  std::vector<BFloat16> bf16 = std::vector<BFloat16>(m * n);
  GemmProblem problem;

  Gemm(const Layout& left, const Layout& right, DType dtype, bool accumulate)
      : a(make_operand(left, m, 128, 1)), b(make_operand(right, n, 128, 2)) {
    void* const memory = dtype == DType::f32 ? static_cast<void*>(f32.data()) : bf16.data();
    problem = {.a = a.view(), .b = b.view(), .output = Tensor(memory, dtype, {m, n}), .accumulate = accumulate};
  }
};

bool can_multiply(const Layout& left, const Layout& right) {
  const auto is_tiles_partner = [](const Layout& layout) { return layout.format == Format::nvfp4 && !layout.outer; };
  return (!left.tiles || is_tiles_partner(right)) && (!right.tiles || is_tiles_partner(left));
}

TEST(GemmCheck, WhatTheKernelsComputeIsExactInEveryTile) {
  for (const Layout& left : layouts) {
    for (const Layout& right : layouts) {
      if (!can_multiply(left, right)) continue;
      for (uint64_t key = 0; key < 4; ++key) {
        const bool accumulate = key == 1;
        Gemm gemm(left, right, key == 3 ? DType::bf16 : DType::f32, accumulate);
        const GemmCheck check(gemm.problem, gemm_tile({0, m, 0, n}, key));
        nibble::gemm(gemm.problem);
        EXPECT_EQ(check.difference(true), "") << describe(left) << " x " << describe(right);
        EXPECT_EQ(check.difference(false), "") << describe(left) << " x " << describe(right);
      }
    }
  }
}

TEST(GemmCheck, TilesCoverTheOutputOnce) {
  std::vector<int> seen(m * n);
  for (uint64_t key = 7; key < 7 + 4; ++key) {
    const GemmTile tile = gemm_tile({0, m, 0, n}, key);
    for (int64_t i = tile.first_row; i < tile.first_row + tile.rows; ++i) {
      for (int64_t j = tile.first_column; j < tile.first_column + tile.columns; ++j)
        ++seen[static_cast<size_t>(i * n + j)];
    }
  }
  EXPECT_EQ(std::count(seen.begin(), seen.end(), 1), m * n);
}

TEST(GemmCheck, TheLastBitOfOneElementIsFound) {
  Gemm gemm({Format::nvfp4}, {Format::nvfp4}, DType::f32, true);
  const GemmCheck check(gemm.problem, gemm_tile({0, m, 0, n}, 3));
  nibble::gemm(gemm.problem);
  float& element = gemm.f32[static_cast<size_t>(199 * n + 529)];
  const float right = element;
  element = std::nextafter(right, std::numeric_limits<float>::infinity());
  EXPECT_NE(check.difference(true).find("element (199, 529) is "), std::string::npos) << check.difference(true);
  EXPECT_EQ(check.difference(false), "");
  element = std::numeric_limits<float>::quiet_NaN();
  EXPECT_NE(check.difference(true), "");
  EXPECT_NE(check.difference(false), "");
}

// A hundredth of a typical element is no rounding.
TEST(GemmCheck, ErrorsOfAHundredthAreFoundInTheOutputOfALibrary) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    Gemm gemm({Format::nvfp4}, {Format::bf16, true}, dtype, false);
    const GemmCheck check(gemm.problem, gemm_tile({0, m, 0, n}, 0));
    nibble::gemm(gemm.problem);
    double squares = 0;
    for (size_t i = 0; i < gemm.f32.size(); ++i) {
      const double value =
          dtype == DType::f32 ? static_cast<double>(gemm.f32[i]) : static_cast<double>(to_float(gemm.bf16[i]));
      squares += value * value;
    }
    const double typical = std::sqrt(squares / static_cast<double>(m * n));
    ASSERT_EQ(check.difference(false), "");
    gemm.f32[5] += static_cast<float>(0.01 * typical);
    gemm.bf16[5] = bf16_nearest(to_float(gemm.bf16[5]) + static_cast<float>(0.05 * typical));
    EXPECT_NE(check.difference(false).find("element (0, 5) is "), std::string::npos);
  }
}

}  // namespace
}  // namespace nibble
