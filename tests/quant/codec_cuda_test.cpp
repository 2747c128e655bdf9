// Compares the codecs with the CUDA toolkit's, whose headers hold host implementations: no CUDA compiler and no GPU is
// needed. Built only where the toolkit's headers are.
#include <cuda_fp4.h>
#include <cuda_fp8.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "quant/format/codec.h"
#include "tests/quant/codec_oracle.h"

namespace nibble::test {
namespace {

float half_value(__half_raw raw) {
  return __half2float(__half(raw));
}

constexpr SmallFloat e2m1{2, 1, 1, 8};
constexpr SmallFloat e4m3{4, 3, 7, 0x7F};
constexpr SmallFloat e5m2{5, 2, 15, 0x7C};

std::vector<float> all_inputs() {
  std::vector<float> inputs;
  for (const SmallFloat& format : {e2m1, e4m3, e5m2}) {
    for (const float value : deciding_inputs(format)) inputs.push_back(value);
  }
  for (uint32_t bits = 0; bits < 0xFFFFFF00u; bits += 0xFFF1u) inputs.push_back(float_of_bits(bits));  // NaN, too
  return inputs;
}

TEST(CodecCuda, RoundToNearest) {
  for (const float value : all_inputs()) {
    ASSERT_EQ(e2m1_nearest(value), __nv_cvt_float_to_fp4(value, __NV_E2M1, cudaRoundNearest) & 15u) << value;
    ASSERT_EQ(e4m3_nearest(value), __nv_cvt_float_to_fp8(value, __NV_SATFINITE, __NV_E4M3)) << value;
    ASSERT_EQ(e5m2_nearest(value), __nv_cvt_float_to_fp8(value, __NV_SATFINITE, __NV_E5M2)) << value;
  }
}

TEST(CodecCuda, PowersOfTwo) {
  for (const float value : all_inputs()) {
    if (!(value >= 0)) continue;
    ASSERT_EQ(e8m0_down(value), __nv_cvt_float_to_e8m0(value, __NV_SATFINITE, cudaRoundZero)) << value;
    ASSERT_EQ(e8m0_up(value), __nv_cvt_float_to_e8m0(value, __NV_SATFINITE, cudaRoundPosInf)) << value;
  }
}

TEST(CodecCuda, EveryCodeIsDecoded) {
  const auto same = [](float a, float b) { return std::isnan(a) ? std::isnan(b) : bits_of(a) == bits_of(b); };
  for (uint32_t code = 0; code < 256; ++code) {
    const auto byte = static_cast<uint8_t>(code);
    EXPECT_TRUE(same(e4m3_to_float(code), half_value(__nv_cvt_fp8_to_halfraw(byte, __NV_E4M3)))) << code;
    EXPECT_TRUE(same(e5m2_to_float(code), half_value(__nv_cvt_fp8_to_halfraw(byte, __NV_E5M2)))) << code;
    const __nv_bfloat16_raw power = __nv_cvt_e8m0_to_bf16raw(byte);
    EXPECT_TRUE(same(e8m0_to_float(code), to_float(BFloat16{power.x}))) << code;
    if (code < 16) {
      EXPECT_TRUE(same(e2m1_to_float(code), half_value(__nv_cvt_fp4_to_halfraw(byte, __NV_E2M1)))) << code;
    }
  }
}

}  // namespace
}  // namespace nibble::test
