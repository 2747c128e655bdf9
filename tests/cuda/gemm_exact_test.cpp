// The exact backend has the bits of the CPU.
#include <cmath>
#include <limits>

#include "cuda/gemm_fixture.h"
#include "quant/format/flushed_math.h"
#include "quant/gemm/cuda/gemm_backend.h"
#include "quant/gemm/gemm_backend_kind.h"

namespace nibble {
namespace {

class ExactGemm : public DeviceTest {
 protected:
  void SetUp() override { cuda::set_gemm_backend(cuda::GemmBackendKind::exact); }
  void TearDown() override { cuda::set_gemm_backend(cuda::GemmBackendKind::automatic); }

  static void expect_same(const TwinOperand& a, const TwinOperand& b, DType dtype, bool accumulate,
                          const std::string& what, float before = 1) {
    TwinTensor output(dtype, {a.cpu().rows, b.cpu().rows});
    output.fill_normal(5, before);
    gemm({.a = a.cpu(), .b = b.cpu(), .output = output.cpu(), .accumulate = accumulate});
    gemm({.a = a.gpu(), .b = b.gpu(), .output = output.gpu(), .accumulate = accumulate});
    EXPECT_TRUE(same_bits(output)) << what;
  }
  static void expect_same_everywhere(const TwinOperand& a, const TwinOperand& b, const std::string& what) {
    expect_same(a, b, DType::f32, false, what + ", fp32");
    expect_same(a, b, DType::f32, true, what + ", added");
    expect_same(a, b, DType::bf16, false, what + ", bf16");
  }
};

TEST_F(ExactGemm, EveryPairOfFormats) {
  constexpr int64_t inner = 96;  // three blocks of 32; not a whole swizzle cell of scales
  for (const Format left : all_formats) {
    for (const Format right : all_formats) {
      const TwinOperand a({left, 67, inner}, 1);
      const TwinOperand b({right, 70, inner}, 2);
      expect_same_everywhere(a, b, name_of_pair(left, right));
    }
  }
}

TEST_F(ExactGemm, ManyStripsOfScales) {
  const TwinOperand a({Format::nvfp4, 260, 208}, 1);
  const TwinOperand b({Format::nvfp4, 131, 208}, 2);
  expect_same_everywhere(a, b, "nvfp4");
  const TwinOperand c({Format::mxfp8_e4m3, 131, 224}, 1);
  const TwinOperand d({Format::mxfp8_e5m2, 260, 224}, 2);
  expect_same_everywhere(c, d, "mxfp8");
}

TEST_F(ExactGemm, OddInnerExtents) {
  for (const int64_t inner : {1, 7, 16, 33}) {
    for (const auto& [left, right] : {std::pair{Format::bf16, Format::bf16}, std::pair{Format::f32, Format::bf16},
                                      std::pair{Format::fp8_e4m3, Format::fp8_e5m2}}) {
      const TwinOperand a({left, 5, inner}, 1);
      const TwinOperand b({right, 66, inner}, 2);
      expect_same_everywhere(a, b, name_of_pair(left, right) + " " + std::to_string(inner));
    }
  }
}

TEST_F(ExactGemm, TransposedOperands) {
  for (const Format format : {Format::bf16, Format::f32}) {
    for (const bool left : {false, true}) {
      for (const bool right : {false, true}) {
        const TwinOperand a({format, 67, 45, left}, 1);
        const TwinOperand b({format, 66, 45, right}, 2);
        expect_same_everywhere(a, b, std::string(name_of(format)));
      }
    }
  }
  const TwinOperand a({Format::bf16, 33, 64, true}, 1);
  const TwinOperand b({Format::nvfp4, 34, 64}, 2);
  expect_same_everywhere(a, b, "bf16 transposed x nvfp4");
}

TEST_F(ExactGemm, OuterScales) {
  const TwinOperand a({Format::nvfp4, 66, 256, false, true}, 1);
  const TwinOperand b({Format::nvfp4, 35, 256}, 2);
  const TwinOperand c({Format::nvfp4, 35, 256, false, true}, 3);
  expect_same_everywhere(a, b, "one");
  expect_same_everywhere(b, a, "the other");
  expect_same_everywhere(a, c, "both");
}

TEST_F(ExactGemm, RotationsAndExtremeTensorScales) {
  TwinOperand a({Format::nvfp4, 20, 64}, 1);
  TwinOperand b({Format::nvfp4, 20, 64}, 2);
  a.cpu().rotation_bits = b.cpu().rotation_bits = 7;
  a.upload();
  b.upload();
  expect_same_everywhere(a, b, "rotated");
  for (const auto& [left, right] : {std::pair{1e-25F, 3e-25F}, std::pair{1e-25F, 1e-14F}, std::pair{3e38F, 7e37F},
                                    std::pair{1e-45F, 1e30F}, std::pair{0.0F, 1.0F}, std::pair{0.1F, -0.3F}}) {
    a.cpu().tensor_scale.as<float>()[0] = left;
    b.cpu().tensor_scale.as<float>()[0] = right;
    a.upload();
    b.upload();
    expect_same_everywhere(a, b, std::to_string(left) + ", " + std::to_string(right));
  }
}

TEST_F(ExactGemm, Bf16ProductsTakeSubnormalNumbersForZero) {
  for (const float size : {1e-19F, 3e-20F, 1e-38F}) {
    TwinOperand a({Format::bf16, 64, 33}, 1, size);
    TwinOperand b({Format::bf16, 64, 33}, 2, size < 1e-30F ? 1.0F : size);
    expect_same_everywhere(a, b, std::to_string(size));
    expect_same(a, b, DType::f32, true, "added to subnormal numbers", 1e-38F);
    a.cpu().rotation_bits = b.cpu().rotation_bits = 14;
    a.upload();
    b.upload();
    expect_same_everywhere(a, b, "rotated " + std::to_string(size));
  }
}

// The sums are beside 2^-126, where rounding to a subnormal number and rounding with an unbounded exponent differ.
TEST_F(ExactGemm, SumsNextToTheSmallestNormalNumber) {
  constexpr int64_t rows = 64;
  TwinOperand a({Format::bf16, rows, 2}, 1);
  TwinOperand b({Format::bf16, rows, 2}, 2);
  // The odd member comes first: 2^-126 (1 + 2^-7 i); then a small number is taken away: the sum ends around 2^-126.
  for (int64_t i = 0; i < rows; ++i) {
    BFloat16* const left = a.cpu().values.as<BFloat16>() + 2 * i;
    BFloat16* const right = b.cpu().values.as<BFloat16>() + 2 * i;
    left[1] = bf16_nearest(0x1p-63F);
    right[1] = bf16_nearest(0x1p-63F);
    left[0] = bf16_nearest(-0x1p-75F * (1.0F + 0x1p-7F * static_cast<float>(i)));
    right[0] = bf16_nearest(std::ldexp(1.0F + 0x1p-7F * static_cast<float>(i % 7), -72 - static_cast<int>(i) % 6));
  }
  a.upload();
  b.upload();
  expect_same_everywhere(a, b, "near 2^-126");
}

TEST_F(ExactGemm, FlushedFusedMultiplyAdd) {
  const float limit = 0x1p-126F;
  EXPECT_EQ(bits_of(flushed_fma(-0x1p-75F, 0x1p-76F, limit)), bits_of(limit));  // half a unit below: to even
  EXPECT_EQ(bits_of(flushed_fma(-0x1.02p-75F, 0x1p-76F, limit)), 0U);           // more than half of a unit
  EXPECT_EQ(bits_of(flushed_fma(0x1.02p-75F, 0x1p-76F, -limit)), 0x80000000U);
  EXPECT_EQ(bits_of(flushed_fma(0x1p-100F, -0x1p-50F, 0.0F)), 0x80000000U);
  EXPECT_EQ(flushed_fma(0x1p-63F, 0x1p-63F, 0.0F), limit);
  EXPECT_TRUE(std::isnan(flushed_fma(std::numeric_limits<float>::infinity(), 0.0F, 1.0F)));
}

TEST_F(ExactGemm, NothingToSum) {
  const TwinOperand a({Format::bf16, 3, 0}, 1);
  const TwinOperand b({Format::bf16, 5, 0}, 2);
  expect_same_everywhere(a, b, "no inner axis");
  EXPECT_EQ(gemm_scratch_bytes(shape_of(a, b), DeviceKind::cuda), 0U);
}

}  // namespace
}  // namespace nibble
