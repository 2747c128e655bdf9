// Compares GEMMs of two nvfp4 operands, in tiles and in rows, with the scalar loops of the contract, bit for bit, on
// every instruction-set level of this machine; and with float64.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "dist/base/error.h"
#include "dist/device/thread_pool.h"
#include "quant/gemm/cpu/gemm_codes.h"
#include "quant/gemm_contract.h"

namespace nibble {
namespace {

class GemmCodes : public testing::Test {
 protected:
  void SetUp() override { set_compute_threads(1); }
};

TEST_F(GemmCodes, TilesEqualTheScalarLoopsBitForBit) {
  for (const Layout& left : {tiles, Layout{Format::nvfp4}}) {
    for (const Layout& right : {tiles, Layout{Format::nvfp4}}) {
      for (int64_t m : {1, 7, 16, 33}) {
        for (int64_t n : {1, 15, 32, 50}) expect_contract(left, right, m, n, 48);
      }
      for (int64_t k : {16, 32, 496, 512, 528, 1040}) expect_contract(left, right, 19, 37, k);
    }
  }
  expect_contract(tiles, tiles, 530, 270, 128);  // more than one block
  expect_contract(tiles, tiles, 500, 40, 1616);  // more of the inner axis than the left panels hold
  expect_contract(tiles, tiles, 30, 70, 16384);
}

// Large outputs in whole lines are stored past the caches.
TEST_F(GemmCodes, LargeOutputsOnAnyNumberOfThreads) {
  struct alignas(64) Line {
    std::byte bytes[64];
  };
  constexpr int64_t m = 1040;
  for (const int64_t n : {528, 530, 544}) {
    Operand a = make_operand(tiles, m, 32, 1);
    Operand b = make_operand(tiles, n, 32, 2);
    const std::vector<float> expected = reference_gemm(a, b);
    std::vector<BFloat16> rounded;
    rounded.reserve(expected.size());
    for (const float value : expected) rounded.push_back(bf16_nearest(value));
    std::vector<Line> memory(static_cast<size_t>(m * n * 4 / 64 + 1));
    auto* const f32 = reinterpret_cast<float*>(memory.data());
    auto* const bf16 = reinterpret_cast<BFloat16*>(memory.data());
    for (const InstructionSet level : levels()) {
      for (int threads : {1, 2, 3, 8}) {
        set_compute_threads(threads);
        const std::string where = std::to_string(threads) + " threads, " + std::string(name_of(level));
        std::fill_n(f32, m * n, 0.0F);
        cpu::gemm_with(level, {a.view(), b.view(), Tensor(f32, DType::f32, {m, n})});
        EXPECT_EQ(first_difference(std::vector<float>(f32, f32 + m * n), expected), -1) << where;
        std::fill_n(f32, m * n, 0.0F);
        cpu::gemm_with(level, {a.view(), b.view(), Tensor(bf16, DType::bf16, {m, n})});
        EXPECT_EQ(first_difference(std::vector<BFloat16>(bf16, bf16 + m * n), rounded), -1) << where << ", bf16";
      }
    }
  }
  set_compute_threads(1);
}

TEST_F(GemmCodes, BlocksOfTilesCoverTheOutputAndAreEnoughForAllThreads) {
  for (const InstructionSet level : levels()) {
    const cpu::CodeKernels& kernels = cpu::code_kernels_of(level);
    for (int64_t m : {1, 16, 100, 4096, 50257}) {
      for (int64_t n : {1, 33, 512, 8192}) {
        for (int threads : {1, 2, 7, 64}) {
          const cpu::CodeBlockShape shape = cpu::choose_code_block(kernels, m, n, threads);
          ASSERT_GT(shape.rows, 0);
          ASSERT_GT(shape.columns, 0);
          EXPECT_EQ(shape.rows % kernels.row_step, 0);
          EXPECT_EQ(shape.columns % kernels.column_step, 0);
          const int64_t blocks = div_ceil(m, shape.rows) * div_ceil(n, shape.columns);
          const int64_t most = div_ceil(m, kernels.row_step) * div_ceil(n, kernels.column_step);
          EXPECT_GE(blocks * 2, std::min<int64_t>(threads, most)) << m << " x " << n << " on " << threads;
        }
      }
    }
  }
}

TEST_F(GemmCodes, WrongTilesAreDefects) {
  const auto expect_defect = [](const auto& change) {
    Operand a = make_operand(tiles, 20, 32, 1);
    Operand b = make_operand(tiles, 4, 32, 2);
    Operand other = make_operand({Format::bf16}, 4, 32, 2);
    std::vector<float> output(80);
    GemmProblem problem{a.view(), b.view(), Tensor(output.data(), DType::f32, {20, 4})};
    cpu::gemm_with(levels()[0], problem);
    change(problem, other);
    EXPECT_THROW(cpu::gemm_with(levels()[0], problem), Error);
  };
  expect_defect([](GemmProblem& problem, Operand& other) { problem.b = other.view(); });
  expect_defect([](GemmProblem& problem, Operand&) { problem.a.layout = OperandLayout::rows; });
  expect_defect([](GemmProblem& problem, Operand&) { problem.b.values = problem.a.values; });
  expect_defect([](GemmProblem& problem, Operand&) { problem.b.block_scales = problem.a.block_scales; });
  expect_defect([](GemmProblem& problem, Operand&) { problem.b.tensor_scale = Tensor(); });
  expect_defect([](GemmProblem& problem, Operand&) { problem.a.transposed = true; });
}

// A block's sum is exact at the extremes of the integer range (2304 = 16 * 12 * 12), where 16-bit steps could wrap.
TEST_F(GemmCodes, LargestCodesAndScales) {
  for (int left : {0x77, 0xFF, 0x7F}) {
    for (int right : {0x77, 0xFF, 0xF7}) {
      Operand a = make_operand({Format::nvfp4}, 33, 64, 1);
      Operand b = make_operand({Format::nvfp4}, 35, 64, 2);
      std::fill(a.codes.begin(), a.codes.end(), static_cast<uint8_t>(left));
      std::fill(b.codes.begin(), b.codes.end(), static_cast<uint8_t>(right));
      std::fill(a.scales.begin(), a.scales.end(), 0x7E);
      std::fill(b.scales.begin(), b.scales.end(), 0x7E);
      a.tensor_scale[0] = b.tensor_scale[0] = 1.0F;
      expect_contract(a, b, "extremes");
      if (left == right) {
        EXPECT_EQ(product(levels()[0], a, b)[0], 64.0F * 6 * 6 * 448 * 448);
      }
    }
  }
}

// Each of the 256 pairs of codes stands alone in its block.
TEST_F(GemmCodes, EveryPairOfCodes) {
  Operand a = make_operand({Format::nvfp4}, 16, 16, 1);
  Operand b = make_operand({Format::nvfp4}, 16, 16, 2);
  std::fill(a.codes.begin(), a.codes.end(), 0);
  std::fill(b.codes.begin(), b.codes.end(), 0);
  std::fill(a.scales.begin(), a.scales.end(), 0x38);  // 1
  std::fill(b.scales.begin(), b.scales.end(), 0x38);
  a.tensor_scale[0] = b.tensor_scale[0] = 1.0F;
  for (size_t row = 0; row < 16; ++row) {
    a.codes[row * 8 + 5] = static_cast<uint8_t>(row << 4);
    b.codes[row * 8 + 5] = static_cast<uint8_t>(row << 4);
  }
  for (const InstructionSet level : levels()) {
    const std::vector<float> got = product(level, a, b);
    for (uint32_t i = 0; i < 16; ++i) {
      for (uint32_t j = 0; j < 16; ++j)
        EXPECT_EQ(got[i * 16 + j], e2m1_to_float(i) * e2m1_to_float(j)) << name_of(level);
    }
  }
}

TEST_F(GemmCodes, ZeroSubnormalAndNanScales) {
  Operand a = make_operand({Format::nvfp4}, 40, 96, 1);
  Operand b = make_operand({Format::nvfp4}, 40, 96, 2);
  for (size_t i = 0; i < a.scales.size(); ++i) a.scales[i] = static_cast<uint8_t>(i % 8);
  for (size_t i = 0; i < b.scales.size(); ++i) b.scales[i] = static_cast<uint8_t>(i % 9);
  expect_contract(a, b, "subnormal scales");
  std::fill(a.scales.begin(), a.scales.end(), 0);
  expect_contract(a, b, "zero scales");
  a.scales[7] = 0x7F;
  expect_contract(a, b, "a NaN scale");
  EXPECT_TRUE(std::isnan(product(levels()[0], a, b)[40]));
}

// The bound is on the relative Frobenius distance to float64. Each of the K/16 roundings is at most 2^-24 of the
// running sum, those of the scales and of alpha two more; the bound 1e-6 holds with room for these sizes, but not for a
// GEMM that loses a block.
TEST_F(GemmCodes, CloseToFloat64) {
  Operand a = make_operand({Format::nvfp4}, 64, 2048, 1);
  Operand b = make_operand({Format::nvfp4}, 64, 2048, 2);
  std::vector<double> exact;
  for (int64_t i = 0; i < a.rows; ++i) {
    for (int64_t j = 0; j < b.rows; ++j) {
      double sum = 0;
      for (int64_t k = 0; k < a.inner; ++k)
        sum += static_cast<double>(a.value(i, k)) * static_cast<double>(b.value(j, k));
      exact.push_back(sum * static_cast<double>(a.tensor_scale[0]) * static_cast<double>(b.tensor_scale[0]));
    }
  }
  for (const InstructionSet level : levels()) {
    const std::vector<float> got = product(level, a, b);
    double error = 0;
    double norm = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      error += (static_cast<double>(got[i]) - exact[i]) * (static_cast<double>(got[i]) - exact[i]);
      norm += exact[i] * exact[i];
    }
    EXPECT_LE(std::sqrt(error), 1e-6 * std::sqrt(norm)) << name_of(level);
    EXPECT_GT(norm, 0.0);
  }
}

}  // namespace
}  // namespace nibble
