// Products against scalar loops that spell out the contract of quant/gemm.h, bit for bit, on every instruction-set
// level of this machine; and against float64.
#include "quant/gemm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

#include "dist/error.h"
#include "dist/thread_pool.h"
#include "quant/gemm_reference.h"

namespace nibble {
namespace {

std::vector<float> product(const cpu::GemmKernels& kernels, Operand& a, Operand& b) {
  std::vector<float> output(static_cast<size_t>(a.rows * b.rows), std::numeric_limits<float>::quiet_NaN());
  cpu::gemm_with(kernels, {a.view(), b.view(), Tensor(output.data(), DType::f32, {a.rows, b.rows})});
  return output;
}

// f32, accumulated f32 and bf16 output against the reference, on every level.
void expect_contract(Operand& a, Operand& b, const std::string& what) {
  const std::vector<float> expected = reference_product(a, b);
  std::vector<float> base(expected.size());
  for (size_t i = 0; i < base.size(); ++i) base[i] = static_cast<float>(i % 17) * 0.37F - 3.0F;
  std::vector<float> expected_sum(base);
  std::vector<BFloat16> expected_bf16;
  expected_bf16.reserve(expected.size());
  for (size_t i = 0; i < base.size(); ++i) expected_sum[i] += expected[i];
  for (float value : expected) expected_bf16.push_back(bf16_nearest(value));
  for (const cpu::GemmKernels* kernels : levels()) {
    const std::string where = what + " on " + kernels->name;
    EXPECT_EQ(first_difference(product(*kernels, a, b), expected), -1) << where;
    std::vector<float> sum(base);
    cpu::gemm_with(*kernels, {a.view(), b.view(), Tensor(sum.data(), DType::f32, {a.rows, b.rows}), true});
    EXPECT_EQ(first_difference(sum, expected_sum), -1) << where << ", accumulated";
    std::vector<BFloat16> bf16(expected.size());
    cpu::gemm_with(*kernels, {a.view(), b.view(), Tensor(bf16.data(), DType::bf16, {a.rows, b.rows})});
    EXPECT_EQ(first_difference(bf16, expected_bf16), -1) << where << ", bf16";
  }
}

std::string describe(Format a, bool a_transposed, Format b, bool b_transposed, int64_t m, int64_t n, int64_t k) {
  const auto name = [](Format format) {
    return format == Format::f32 ? "f32" : format == Format::bf16 ? "bf16" : "nvfp4";
  };
  return std::string(name(a)) + (a_transposed ? "^T" : "") + " x " + name(b) + (b_transposed ? "^T" : "") +
         " m=" + std::to_string(m) + " n=" + std::to_string(n) + " k=" + std::to_string(k);
}

struct Layout {
  Format format;
  bool transposed;
};
constexpr Layout layouts[] = {
    {Format::f32, false}, {Format::f32, true}, {Format::bf16, false}, {Format::bf16, true}, {Format::nvfp4, false}};

void expect_contract(Layout left, Layout right, int64_t m, int64_t n, int64_t k) {
  Operand a = make_operand(left.format, m, k, left.transposed, 1);
  Operand b = make_operand(right.format, n, k, right.transposed, 2);
  expect_contract(a, b, describe(left.format, left.transposed, right.format, right.transposed, m, n, k));
}

class GemmShapes : public testing::Test {
 protected:
  void SetUp() override { set_compute_threads(1); }
};

TEST_F(GemmShapes, EveryPairOfFormatsEqualsTheScalarLoopsBitForBit) {
  for (const Layout& left : layouts) {
    for (const Layout& right : layouts) {
      for (int64_t m : {1, 7, 33}) {
        for (int64_t n : {1, 7, 33}) {
          for (int64_t k : {16, 48, 272}) expect_contract(left, right, m, n, k);
        }
      }
      expect_contract(left, right, 100, 100, 272);
      expect_contract(left, right, 14, 32, 64);
    }
  }
}

TEST_F(GemmShapes, OddInnerExtentsOfPlainFormats) {
  for (const Layout& left : layouts) {
    for (const Layout& right : layouts) {
      if (left.format == Format::nvfp4 || right.format == Format::nvfp4) continue;
      for (int64_t k : {1, 5, 15, 17, 255, 257}) expect_contract(left, right, 19, 37, k);
    }
  }
}

TEST_F(GemmShapes, MoreThanOneBlockAndOnePassOverTheInnerAxis) {
  expect_contract({Format::nvfp4, false}, {Format::nvfp4, false}, 461, 269, 528);
  expect_contract({Format::bf16, false}, {Format::bf16, true}, 461, 269, 131);
  expect_contract({Format::nvfp4, false}, {Format::nvfp4, false}, 9, 40, 1600);
  expect_contract({Format::nvfp4, false}, {Format::bf16, true}, 9, 40, 528);
}

TEST_F(GemmShapes, AnEmptyInnerAxisGivesZero) {
  for (const Layout& layout : layouts) expect_contract(layout, layout, 5, 3, 0);
}

TEST_F(GemmShapes, NoRowsIsNoWork) {
  for (const cpu::GemmKernels* kernels : levels()) {
    Operand a = make_operand(Format::bf16, 0, 16, false, 1);
    Operand b = make_operand(Format::bf16, 3, 16, false, 2);
    EXPECT_TRUE(product(*kernels, a, b).empty());
  }
}

TEST(GemmThreads, TheNumberOfThreadsChangesNoBit) {
  for (const Layout& layout : {layouts[2], layouts[4]}) {
    Operand a = make_operand(layout.format, 333, 272, false, 1);
    Operand b = make_operand(layout.format, 217, 272, false, 2);
    for (const cpu::GemmKernels* kernels : levels()) {
      set_compute_threads(1);
      const std::vector<float> expected = product(*kernels, a, b);
      for (int threads : {2, 4}) {
        set_compute_threads(threads);
        EXPECT_EQ(first_difference(product(*kernels, a, b), expected), -1) << threads << " threads, " << kernels->name;
      }
    }
  }
  set_compute_threads(1);
}

// A block's sum is exact at the extremes of the integer range (2304 = 16 * 12 * 12), where 16-bit steps could wrap.
TEST_F(GemmShapes, LargestCodesAndScales) {
  for (int left : {0x77, 0xFF, 0x7F}) {
    for (int right : {0x77, 0xFF, 0xF7}) {
      Operand a = make_operand(Format::nvfp4, 33, 64, false, 1);
      Operand b = make_operand(Format::nvfp4, 35, 64, false, 2);
      std::fill(a.codes.begin(), a.codes.end(), static_cast<uint8_t>(left));
      std::fill(b.codes.begin(), b.codes.end(), static_cast<uint8_t>(right));
      std::fill(a.scales.begin(), a.scales.end(), 0x7E);
      std::fill(b.scales.begin(), b.scales.end(), 0x7E);
      a.tensor_scale[0] = b.tensor_scale[0] = 1.0F;
      expect_contract(a, b, "extremes");
      if (left == right) {
        EXPECT_EQ(product(*levels()[0], a, b)[0], 64.0F * 6 * 6 * 448 * 448);
      }
    }
  }
}

// All 256 pairs of codes, each alone in its block.
TEST_F(GemmShapes, EveryPairOfCodes) {
  Operand a = make_operand(Format::nvfp4, 16, 16, false, 1);
  Operand b = make_operand(Format::nvfp4, 16, 16, false, 2);
  std::fill(a.codes.begin(), a.codes.end(), 0);
  std::fill(b.codes.begin(), b.codes.end(), 0);
  std::fill(a.scales.begin(), a.scales.end(), 0x38);  // 1
  std::fill(b.scales.begin(), b.scales.end(), 0x38);
  a.tensor_scale[0] = b.tensor_scale[0] = 1.0F;
  for (size_t row = 0; row < 16; ++row) {
    a.codes[row * 8 + 5] = static_cast<uint8_t>(row << 4);
    b.codes[row * 8 + 5] = static_cast<uint8_t>(row << 4);
  }
  for (const cpu::GemmKernels* kernels : levels()) {
    const std::vector<float> got = product(*kernels, a, b);
    for (uint32_t i = 0; i < 16; ++i) {
      for (uint32_t j = 0; j < 16; ++j)
        EXPECT_EQ(got[i * 16 + j], e2m1_to_float(i) * e2m1_to_float(j)) << kernels->name;
    }
  }
}

TEST_F(GemmShapes, ZeroSubnormalAndNanScales) {
  Operand a = make_operand(Format::nvfp4, 40, 96, false, 1);
  Operand b = make_operand(Format::nvfp4, 40, 96, false, 2);
  for (size_t i = 0; i < a.scales.size(); ++i) a.scales[i] = static_cast<uint8_t>(i % 8);
  for (size_t i = 0; i < b.scales.size(); ++i) b.scales[i] = static_cast<uint8_t>(i % 9);
  expect_contract(a, b, "subnormal scales");
  std::fill(a.scales.begin(), a.scales.end(), 0);
  expect_contract(a, b, "zero scales");
  a.scales[7] = 0x7F;
  expect_contract(a, b, "a NaN scale");
  EXPECT_TRUE(std::isnan(product(*levels()[0], a, b)[40]));
}

// The tensor scales' product under- or overflows FP32; what it multiplies brings the result back.
TEST_F(GemmShapes, ExtremeTensorScalesAreRoundedOnce) {
  struct Case {
    float g_a, g_b;
  };
  for (const Case& scales : {Case{3.3e-23F, 7.7e-22F}, Case{1e-20F, 3e-19F}, Case{1.1e-30F, 1e-30F}, Case{1e25F, 3e14F},
                             Case{0x1p-149F, 0x1p-3F}, Case{0.0F, 1.0F}, Case{1e-45F, 0.0F}}) {
    Operand a = make_operand(Format::nvfp4, 20, 48, false, 1);
    Operand b = make_operand(Format::nvfp4, 20, 48, false, 2);
    a.tensor_scale[0] = b.tensor_scale[0] = 1.0F;
    std::vector<float> unscaled = reference_product(a, b);  // c / 4
    a.tensor_scale[0] = scales.g_a;
    b.tensor_scale[0] = scales.g_b;
    int exponent = 0;
    const double exact = static_cast<double>(scales.g_a) * static_cast<double>(scales.g_b);
    const auto fraction = static_cast<float>(std::frexp(exact, &exponent));
    const double alpha = std::ldexp(static_cast<double>(fraction), exponent);
    for (float& value : unscaled) value = static_cast<float>(static_cast<double>(value) * alpha);
    for (const cpu::GemmKernels* kernels : levels()) {
      EXPECT_EQ(first_difference(product(*kernels, a, b), unscaled), -1) << scales.g_a << " * " << scales.g_b;
    }
    for (size_t i = 0; i < unscaled.size() && exact > 0 && exact < 1e-36 && exact > 1e-45; ++i) {
      EXPECT_NE(unscaled[i], 0.0F);
    }
  }
}

TEST_F(GemmShapes, InfinitiesAndNanArrive) {
  Operand a = make_operand(Format::bf16, 20, 32, false, 1);
  Operand b = make_operand(Format::bf16, 20, 32, false, 2);
  a.bf16[3] = bf16_nearest(std::numeric_limits<float>::infinity());
  a.bf16[5 * 32] = bf16_nearest(std::numeric_limits<float>::quiet_NaN());
  expect_contract(a, b, "non-finite values");
  const std::vector<float> got = product(*levels()[0], a, b);
  EXPECT_TRUE(std::isinf(got[0]));
  EXPECT_TRUE(std::isnan(got[5 * 20]));
}

// Relative Frobenius distance to float64. Each of the K/16 roundings is at most 2^-24 of the running sum, the scales'
// and alpha's two more; the bound 1e-6 holds with room for these sizes, but not for a product that loses a block.
TEST_F(GemmShapes, CloseToFloat64) {
  Operand a = make_operand(Format::nvfp4, 64, 2048, false, 1);
  Operand b = make_operand(Format::nvfp4, 64, 2048, false, 2);
  std::vector<double> exact;
  for (int64_t i = 0; i < a.rows; ++i) {
    for (int64_t j = 0; j < b.rows; ++j) {
      double sum = 0;
      for (int64_t k = 0; k < a.inner; ++k)
        sum += static_cast<double>(a.value(i, k)) * static_cast<double>(b.value(j, k));
      exact.push_back(sum * static_cast<double>(a.tensor_scale[0]) * static_cast<double>(b.tensor_scale[0]));
    }
  }
  for (const cpu::GemmKernels* kernels : levels()) {
    const std::vector<float> got = product(*kernels, a, b);
    double error = 0;
    double norm = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      error += (static_cast<double>(got[i]) - exact[i]) * (static_cast<double>(got[i]) - exact[i]);
      norm += exact[i] * exact[i];
    }
    EXPECT_LE(std::sqrt(error), 1e-6 * std::sqrt(norm)) << kernels->name;
    EXPECT_GT(norm, 0.0);
  }
}

TEST(InstructionSet, NamesAndErrors) {
  for (const cpu::GemmKernels* kernels : levels()) {
    EXPECT_STREQ(cpu::select_gemm_kernels(kernels->level).level, kernels->level);
  }
  EXPECT_STREQ(levels().back()->name, "portable");
  EXPECT_EQ(&cpu::select_gemm_kernels(nullptr), levels().front());
  EXPECT_EQ(&cpu::select_gemm_kernels(""), levels().front());
  for (const char* wrong : {"avx", "AVX2", "avx512_vnni", "neon"}) {
    try {
      cpu::select_gemm_kernels(wrong);
      FAIL() << wrong;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::usage);
      EXPECT_NE(std::string(error.what()).find(wrong), std::string::npos);
      for (const char* valid : {"portable", "avx2", "avx512"}) {
        EXPECT_NE(error.remedy().find(valid), std::string::npos);
      }
    }
  }
}

TEST(InstructionSet, TheEnvironmentForcesALevel) {
  ASSERT_EQ(setenv("NIBBLE_ISA", "portable", 1), 0);  // before the first use in this process
  EXPECT_STREQ(instruction_set(), "portable");
  Operand a = make_operand(Format::nvfp4, 5, 32, false, 1);
  Operand b = make_operand(Format::nvfp4, 6, 32, false, 2);
  std::vector<float> output(30);
  gemm({a.view(), b.view(), Tensor(output.data(), DType::f32, {5, 6})});
  EXPECT_EQ(first_difference(output, reference_product(a, b)), -1);
  ASSERT_EQ(unsetenv("NIBBLE_ISA"), 0);
}

}  // namespace
}  // namespace nibble
