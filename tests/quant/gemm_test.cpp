// Compares GEMMs with scalar loops that spell out the contract of quant/gemm/gemm.h, bit for bit, on every
// instruction-set level of this machine; and with float64.
#include "quant/gemm/gemm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

#include "dist/base/error.h"
#include "dist/device/thread_pool.h"
#include "quant/gemm_contract.h"

namespace nibble {
namespace {

constexpr Layout plain_layouts[] = {{Format::f32}, {Format::f32, true}, {Format::bf16}, {Format::bf16, true}};
constexpr Layout layouts[] = {{Format::f32},        {Format::f32, true},  {Format::bf16},
                              {Format::bf16, true}, {Format::nvfp4},      {Format::nvfp4, false, true},
                              {Format::mxfp4},      {Format::mxfp8_e4m3}, {Format::mxfp8_e5m2},
                              {Format::fp8_e4m3},   {Format::fp8_e5m2}};

int64_t unit_of(const Layout& layout) {
  return layout.outer ? 128 : std::max(1, traits_of(layout.format).block);
}

class GemmShapes : public testing::Test {
 protected:
  void SetUp() override { set_compute_threads(1); }
};

TEST_F(GemmShapes, EveryPairOfFormatsEqualsTheScalarLoopsBitForBit) {
  for (const Layout& left : layouts) {
    for (const Layout& right : layouts) {
      const int64_t unit = std::max({int64_t{16}, unit_of(left), unit_of(right)});
      for (int64_t m : {1, 7, 33}) {
        for (int64_t n : {1, 7, 33}) expect_contract(left, right, m, n, 3 * unit);
      }
      expect_contract(left, right, 7, 33, unit);
      expect_contract(left, right, 14, 32, round_up(int64_t{272}, unit));  // more than one panel along the inner axis
      expect_contract(left, right, 100, 100, unit);
    }
  }
}

TEST_F(GemmShapes, OddInnerExtentsOfFormatsWithoutBlocks) {
  for (const Layout& left : layouts) {
    for (const Layout& right : layouts) {
      if (unit_of(left) != 1 || unit_of(right) != 1) continue;
      for (int64_t k : {1, 5, 15, 17, 255, 257}) expect_contract(left, right, 19, 37, k);
    }
  }
}

TEST_F(GemmShapes, MoreThanOneBlockAndOnePassOverTheInnerAxis) {
  expect_contract({Format::nvfp4}, {Format::nvfp4}, 461, 269, 528);
  expect_contract({Format::bf16}, {Format::bf16, true}, 461, 269, 131);
  expect_contract({Format::nvfp4}, {Format::nvfp4}, 9, 40, 1600);
  expect_contract({Format::nvfp4}, {Format::bf16, true}, 9, 40, 528);
  expect_contract({Format::mxfp8_e4m3}, {Format::mxfp4}, 461, 269, 288);
  expect_contract({Format::fp8_e5m2}, {Format::fp8_e4m3}, 461, 269, 259);
}

TEST_F(GemmShapes, AnEmptyInnerAxisGivesZero) {
  for (const Layout& layout : layouts) expect_contract(layout, layout, 5, 3, 0);
  expect_contract(tiles, tiles, 5, 3, 0);
}

// Every code of every format is decoded alone: it is multiplied by a one of BF16, in the same and in other positions.
TEST_F(GemmShapes, EveryCodeIsDecoded) {
  for (const Layout& layout : layouts) {
    if (!is_quantized(layout.format)) continue;
    Operand a = make_operand(layout, 256, 128, 1);
    std::fill(a.codes.begin(), a.codes.end(), 0);
    const bool bytes = a.traits().code_bits == 8;
    for (size_t row = 0; row < 256; ++row) {
      const size_t k = row % 128;
      a.codes[bytes ? row * 128 + k : (row * 128 + k) / 2] = static_cast<uint8_t>(bytes || k % 2 == 0 ? row : row << 4);
    }
    a.tensor_scale[0] = 1.0F;
    Operand b = make_operand({Format::bf16}, 3, 128, 2);
    std::fill(b.bf16.begin(), b.bf16.end(), bf16_nearest(1.0F));
    expect_contract(a, b, describe(layout));
    const std::vector<float> got = product(levels()[0], a, b);
    for (uint32_t row = 0; row < 127 && layout.format == Format::fp8_e4m3; ++row)
      EXPECT_EQ(got[row * 3], e4m3_to_float(row));
  }
}

// Rotations are undone by an exact power of two: the result is that of unrotated operands, shifted.
TEST_F(GemmShapes, RotationBitsShiftTheProduct) {
  struct Case {
    int a_bits, b_bits, shift;
  };
  for (const Layout& layout : layouts) {
    for (const Case& bits : {Case{7, 7, 7}, Case{14, 14, 14}, Case{5, 5, 5}, Case{6, 0, 3}}) {
      Operand a = make_operand(layout, 7, 256, 1);
      Operand b = make_operand(layout, 9, 256, 2);
      std::vector<float> expected = product(levels()[0], a, b);
      for (float& value : expected) value = std::ldexp(value, -bits.shift);
      a.rotation_bits = bits.a_bits;
      b.rotation_bits = bits.b_bits;
      expect_contract(a, b, describe(layout) + ", rotated");
      EXPECT_EQ(first_difference(product(levels()[0], a, b), expected), -1) << describe(layout);
    }
  }
}

TEST_F(GemmShapes, WrongOperandsAreDefects) {
  const auto expect_defect = [](const auto& change) {
    Operand a = make_operand({Format::nvfp4, false, true}, 4, 128, 1);
    Operand b = make_operand({Format::mxfp8_e4m3}, 4, 128, 2);
    std::vector<float> output(16);
    GemmProblem problem{a.view(), b.view(), Tensor(output.data(), DType::f32, {4, 4})};
    cpu::gemm_with(levels()[0], problem);
    change(problem);
    EXPECT_THROW(cpu::gemm_with(levels()[0], problem), Error);
  };
  expect_defect([](GemmProblem& problem) { problem.a.rotation_bits = 7; });
  expect_defect([](GemmProblem& problem) { problem.a.transposed = true; });
  expect_defect([](GemmProblem& problem) { problem.a.tensor_scale = Tensor(); });
  expect_defect([](GemmProblem& problem) { problem.b.tensor_scale = Tensor(); });
  expect_defect([](GemmProblem& problem) { problem.b.block_scales = problem.a.block_scales; });
  expect_defect([](GemmProblem& problem) { problem.b.outer_scales = problem.a.outer_scales; });
  expect_defect([](GemmProblem& problem) { problem.b.values = problem.a.values; });
  expect_defect([](GemmProblem& problem) { problem.a.format = Format::mxfp4; });
}

TEST_F(GemmShapes, NoRowsIsNoWork) {
  for (const InstructionSet level : levels()) {
    Operand a = make_operand({Format::bf16}, 0, 16, 1);
    Operand b = make_operand({Format::bf16}, 3, 16, 2);
    EXPECT_TRUE(product(level, a, b).empty());
  }
}

TEST(GemmThreads, TheNumberOfThreadsChangesNoBit) {
  for (const Layout& layout : {Layout{Format::bf16}, Layout{Format::nvfp4}, Layout{Format::mxfp8_e5m2}, tiles}) {
    Operand a = make_operand(layout, 333, 288, 1);
    Operand b = make_operand(layout, 217, 288, 2);
    for (const InstructionSet level : levels()) {
      set_compute_threads(1);
      const std::vector<float> expected = product(level, a, b);
      for (int threads : {2, 4}) {
        set_compute_threads(threads);
        EXPECT_EQ(first_difference(product(level, a, b), expected), -1) << threads << " threads, " << name_of(level);
      }
    }
  }
  set_compute_threads(1);
}

// The scales cover the whole range of E8M0: products with elements are exact down to 2^-127 * 2^-16, subnormal in FP32,
// and become infinite above; 0xFF makes its block NaN.
TEST_F(GemmShapes, SmallestLargestAndNanPowersOfTwo) {
  for (const Format format : {Format::mxfp4, Format::mxfp8_e4m3, Format::mxfp8_e5m2}) {
    Operand a = make_operand({format}, 40, 96, 1);
    Operand b = make_operand({Format::bf16}, 40, 96, 2);
    for (size_t i = 0; i < a.scales.size(); ++i) a.scales[i] = static_cast<uint8_t>(i < 60 ? i / 3 : 252);
    for (int64_t row = 0; row < 20; ++row) {
      for (int64_t k = 0; k < 96; ++k) {
        const double exact = static_cast<double>(a.element(row, k)) * static_cast<double>(a.block_scale(row, k / 32));
        ASSERT_EQ(static_cast<double>(a.value(row, k)), exact) << name_of(format);
      }
    }
    a.scales[30 * 3] = 254;
    a.scales[31 * 3] = 255;
    for (const float g : {1.0F, 0x1p100F, 0x1p-100F}) {
      a.tensor_scale[0] = g;
      expect_contract(a, b, std::string(name_of(format)) + " with extreme scales");
    }
    EXPECT_TRUE(std::isnan(product(levels()[0], a, b)[31 * 40]));
  }
}

// Every element has two FP32 scales: if it is subnormal or infinite after the second, it is so in the GEMM.
TEST_F(GemmShapes, ExtremeOuterScales) {
  Operand a = make_operand({Format::nvfp4, false, true}, 12, 256, 1);
  Operand b = make_operand({Format::nvfp4, false, true}, 12, 256, 2);
  const float extremes[] = {0.0F, 0x1p-149F, 1e-38F, 1e-30F, 1e30F, 3e38F, 0.3333333F, 1.0F};
  for (size_t i = 0; i < a.outer_scales.size(); ++i) a.outer_scales[i] = extremes[i % 8];
  expect_contract(a, b, "outer scales of one operand");
  for (size_t i = 0; i < b.outer_scales.size(); ++i) b.outer_scales[i] = extremes[i % 7];
  expect_contract(a, b, "outer scales of both");
}

// The product of the tensor scales under- or overflows FP32; the sums that it multiplies bring the result back.
TEST_F(GemmShapes, ExtremeTensorScalesAreRoundedOnce) {
  struct Case {
    float g_a, g_b;
  };
  for (const Layout& layout :
       {Layout{Format::nvfp4}, Layout{Format::nvfp4, false, true}, Layout{Format::mxfp4}, Layout{Format::fp8_e4m3}}) {
    for (const Case& scales : {Case{3.3e-23F, 7.7e-22F}, Case{1e-20F, 3e-19F}, Case{1.1e-30F, 1e-30F},
                               Case{1e25F, 3e14F}, Case{0x1p-149F, 0x1p-3F}, Case{0.0F, 1.0F}, Case{1e-45F, 0.0F}}) {
      Operand a = make_operand(layout, 20, 128, 1);
      Operand b = make_operand(layout, 20, 128, 2);
      a.tensor_scale[0] = b.tensor_scale[0] = 1.0F;
      a.rotation_bits = b.rotation_bits = 7;
      std::vector<float> unscaled = reference_gemm(a, b);  // times the power of two
      a.tensor_scale[0] = scales.g_a;
      b.tensor_scale[0] = scales.g_b;
      int exponent = 0;
      const double exact = static_cast<double>(scales.g_a) * static_cast<double>(scales.g_b);
      const auto fraction = static_cast<float>(std::frexp(exact, &exponent));
      const double alpha = std::ldexp(static_cast<double>(fraction), exponent);
      for (float& value : unscaled) value = static_cast<float>(static_cast<double>(value) * alpha);
      for (const InstructionSet level : levels()) {
        EXPECT_EQ(first_difference(product(level, a, b), unscaled), -1) << scales.g_a << " * " << scales.g_b;
      }
      for (size_t i = 0; i < unscaled.size() && exact > 0 && exact < 1e-36 && exact > 1e-43; ++i) {
        EXPECT_NE(unscaled[i], 0.0F);
      }
    }
  }
}

TEST_F(GemmShapes, InfinitiesAndNanArrive) {
  Operand a = make_operand({Format::bf16}, 20, 32, 1);
  Operand b = make_operand({Format::bf16}, 20, 32, 2);
  a.bf16[3] = bf16_nearest(std::numeric_limits<float>::infinity());
  a.bf16[5 * 32] = bf16_nearest(std::numeric_limits<float>::quiet_NaN());
  expect_contract(a, b, "non-finite values");
  const std::vector<float> got = product(levels()[0], a, b);
  EXPECT_TRUE(std::isinf(got[0]));
  EXPECT_TRUE(std::isnan(got[5 * 20]));
}

TEST(InstructionSet, NamesAndErrors) {
  for (const InstructionSet level : levels()) EXPECT_EQ(select_instruction_set(name_of(level)), level);
  EXPECT_EQ(levels().back(), InstructionSet::portable);
  EXPECT_EQ(select_instruction_set(""), levels().front());
  for (const char* wrong : {"avx", "AVX2", "avx512_amx", "neon"}) {
    try {
      select_instruction_set(wrong);
      FAIL() << wrong;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::usage);
      EXPECT_NE(std::string(error.what()).find(wrong), std::string::npos);
      for (const InstructionSet valid : levels()) {
        EXPECT_NE(error.remedy().find(name_of(valid)), std::string::npos);
      }
    }
  }
}

TEST(InstructionSet, TheEnvironmentForcesALevel) {
  ASSERT_EQ(setenv("NIBBLE_ISA", "portable", 1), 0);  // before the first use in this process
  EXPECT_EQ(instruction_set(), InstructionSet::portable);
  Operand a = make_operand({Format::nvfp4}, 5, 32, 1);
  Operand b = make_operand({Format::nvfp4}, 6, 32, 2);
  std::vector<float> output(30);
  gemm({a.view(), b.view(), Tensor(output.data(), DType::f32, {5, 6})});
  EXPECT_EQ(first_difference(output, reference_gemm(a, b)), -1);
  ASSERT_EQ(unsetenv("NIBBLE_ISA"), 0);
}

}  // namespace
}  // namespace nibble
