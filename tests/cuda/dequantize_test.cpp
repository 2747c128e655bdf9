#include <limits>

#include "cuda/gemm_fixture.h"
#include "cuda/same_numbers.h"

namespace nibble {
namespace {

class Dequantize : public DeviceTest {};

// Compares rows [first, last) on both devices, in either dtype; the output begins `skew` elements into its memory.
void expect_same_rows(const TwinOperand& operand, int64_t first, int64_t last, int64_t skew = 0) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const int64_t elements = (last - first) * operand.cpu().inner;
    TwinTensor output(dtype, {elements + skew});
    output.fill_normal(9);
    for (const DeviceKind device : {DeviceKind::cpu, DeviceKind::cuda}) {
      const Tensor part = output.on(device).slice(skew, skew + elements).reshape({last - first, operand.cpu().inner});
      dequantize_rows(device == DeviceKind::cpu ? operand.cpu() : operand.gpu(), first, part);
    }
    EXPECT_TRUE(same_numbers(output)) << name_of(operand.cpu().format) << " to " << name_of(dtype) << ", rows " << first
                                      << " to " << last << " of " << operand.cpu().inner;
  }
}

TEST_F(Dequantize, EveryFormatHasTheBitsOfTheCpu) {
  for (const Format format : all_formats) {
    for (const int64_t inner : {32, 160}) {
      const TwinOperand operand({.format = format, .rows = 131, .inner = inner}, 1);
      expect_same_rows(operand, 0, 131);
      expect_same_rows(operand, 127, 130);
      expect_same_rows(operand, 5, 6, 1);
      expect_same_rows(operand, 7, 7);
    }
  }
}

TEST_F(Dequantize, RowsThatPacksDoNotDivide) {
  for (const Format format : {Format::f32, Format::bf16, Format::fp8_e4m3, Format::fp8_e5m2}) {
    expect_same_rows(TwinOperand({.format = format, .rows = 9, .inner = 48}, 1), 1, 8, 3);
    expect_same_rows(TwinOperand({.format = format, .rows = 9, .inner = 37}, 1), 1, 8);
  }
}

TEST_F(Dequantize, TransposedValues) {
  for (const Format format : {Format::f32, Format::bf16}) {
    const TwinOperand operand({.format = format, .rows = 70, .inner = 45, .transposed = true}, 1);
    expect_same_rows(operand, 0, 70);
    expect_same_rows(operand, 33, 69);
  }
}

// Rotations have 32, 64 and 128 points, once and twice: the scale is an FP32 number for some of them only.
TEST_F(Dequantize, RotationsAndOuterScales) {
  for (const bool outer : {false, true}) {
    for (const int bits : {0, 5, 6, 7, 14}) {
      TwinOperand operand({.format = Format::nvfp4, .rows = 20, .inner = 256, .outer_scales = outer}, 1);
      operand.cpu().rotation_bits = bits;
      operand.upload();
      expect_same_rows(operand, 0, 20);
    }
  }
}

TEST_F(Dequantize, ScalesWhoseProductsAreSubnormalOrInfinite) {
  for (const float scale : {1e-45F, 1e-41F, 3e-38F, 7e-31F, 1.7e-30F, 1e30F, 3e38F, 0.0F}) {
    for (const Format format : {Format::nvfp4, Format::mxfp8_e5m2, Format::fp8_e4m3}) {
      TwinOperand operand({.format = format, .rows = 4, .inner = 64}, 1);
      operand.cpu().tensor_scale.as<float>()[0] = scale;
      operand.upload();
      expect_same_rows(operand, 0, 4);
    }
  }
}

TEST_F(Dequantize, ASourceThatWasNotFiniteIsNotANumberEverywhere) {
  TwinOperand operand({.format = Format::nvfp4, .rows = 4, .inner = 64}, 1);
  operand.cpu().tensor_scale.as<float>()[0] = std::numeric_limits<float>::quiet_NaN();
  operand.upload();
  expect_same_rows(operand, 0, 4);
  TwinTensor output(DType::f32, {4, 64});
  dequantize(operand.gpu(), output.gpu());
  const HostCopy values(output.gpu());
  for (const float value : values.as<float>()) EXPECT_TRUE(is_nan(value));
}

// With these tensor scales the FP32 product lies half way between two BF16 numbers and the exact one does not.
TEST_F(Dequantize, RoundsToBf16Once) {
  std::mt19937 generator(1);
  int checked = 0;
  for (int trial = 0; trial < 30'000'000 && checked < 8; ++trial) {
    const float scale = float_of_bits(0x3F800000u | (generator() & 0x7FFFFFu));
    const float factor = static_cast<float>(1 + generator() % 7) * 0.25F;  // value of an element times its block scale
    const double exact = static_cast<double>(factor) * scale;
    if (bf16_nearest_once(exact) == bf16_nearest(static_cast<float>(exact))) continue;
    TwinOperand operand({.format = Format::fp8_e4m3, .rows = 1, .inner = 32}, 1);
    for (int64_t i = 0; i < 32; ++i) {
      operand.cpu().values.as<uint8_t>()[i] = static_cast<uint8_t>(e4m3_nearest(i % 2 == 0 ? factor : -factor));
    }
    // The second power makes the error of the product less than any FP32 number.
    for (const float power : {1.0F, 0x1p-126F}) {
      operand.cpu().tensor_scale.as<float>()[0] = scale * power;
      operand.upload();
      expect_same_rows(operand, 0, 1);
    }
    ++checked;
  }
  EXPECT_EQ(checked, 8);
}

}  // namespace
}  // namespace nibble
