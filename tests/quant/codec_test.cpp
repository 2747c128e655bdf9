// Compares BF16, E2M1 and the scales of an NVFP4 tensor with an exhaustive search in double precision.
#include "quant/format/codec.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/quant/codec_oracle.h"
#include "tests/quant/reference_quantize.h"

namespace nibble::test {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
const float quiet_nan = std::numeric_limits<float>::quiet_NaN();

float bf16_value(uint32_t bits) {
  return to_float(BFloat16{static_cast<uint16_t>(bits)});
}

TEST(Codec, Bf16NearestIsTheNearer) {
  for (uint32_t bits = 0; bits < 0x7F80; ++bits) {
    const float low = bf16_value(bits);
    const float high = bits == 0x7F7F ? infinity : bf16_value(bits + 1);
    const float middle = float_of_bits((bits << 16) + 0x8000);
    const float even = bits % 2 == 0 ? low : high;
    ASSERT_EQ(to_float(bf16_nearest(low)), low);
    ASSERT_EQ(to_float(bf16_nearest(std::nextafter(middle, 0.0f))), low) << bits;
    ASSERT_EQ(to_float(bf16_nearest(middle)), even) << bits;
    ASSERT_EQ(to_float(bf16_nearest(std::nextafter(middle, infinity))), high) << bits;
    ASSERT_EQ(to_float(bf16_nearest(-middle)), -even) << bits;
  }
}

TEST(Codec, Bf16KeepsNanInfinityAndSign) {
  EXPECT_EQ(bf16_nearest(infinity).bits, 0x7F80);
  EXPECT_EQ(bf16_nearest(-infinity).bits, 0xFF80);
  EXPECT_EQ(bf16_nearest(-0.0f).bits, 0x8000);
  // A NaN whose payload lies wholly in the dropped half must not become infinite.
  EXPECT_TRUE(std::isnan(to_float(bf16_nearest(float_of_bits(0x7F800001)))));
  EXPECT_TRUE(std::isnan(to_float(bf16_nearest(float_of_bits(0xFFFFFFFF)))));
  EXPECT_TRUE(std::isnan(to_float(bf16_stochastic(float_of_bits(0x7F800001), 0xFFFF))));
  EXPECT_EQ(bf16_stochastic(-infinity, 0xFFFF).bits, 0xFF80);
}

TEST(Codec, Bf16FromDoubleRoundsOnce) {
  const double tie = 1 + 0x1p-8;  // between 1 and 1 + 2^-7
  EXPECT_EQ(to_float(bf16_nearest_once(tie)), 1.0f);
  EXPECT_EQ(to_float(bf16_nearest_once(tie + 0x1p-40)), 1 + 0x1p-7f);  // rounding to FP32 first would give 1
  EXPECT_EQ(to_float(bf16_nearest_once(-tie - 0x1p-40)), -1 - 0x1p-7f);
  const double odd_tie = 1 + 3 * 0x1p-8;  // between 1 + 2^-7 and 1 + 2^-6: the even one is above
  EXPECT_EQ(to_float(bf16_nearest_once(odd_tie)), 1 + 0x1p-6f);
  EXPECT_EQ(to_float(bf16_nearest_once(odd_tie - 0x1p-40)), 1 + 0x1p-7f);
  EXPECT_EQ(to_float(bf16_nearest_once(-odd_tie + 0x1p-40)), -1 - 0x1p-7f);
  EXPECT_TRUE(std::isnan(to_float(bf16_nearest_once(quiet_nan))));
}

// The number of random words, out of all 2^16, that round up is exactly the dropped part.
TEST(Codec, Bf16StochasticHasExactProbabilities) {
  for (const uint32_t dropped : {0u, 1u, 0x7FFFu, 0x8000u, 0xFFFFu}) {
    const float value = float_of_bits(0x3FC10000u | dropped);
    uint32_t up = 0;
    for (uint32_t bits = 0; bits < 0x10000; ++bits) {
      const BFloat16 rounded = bf16_stochastic(value, bits);
      ASSERT_EQ(bf16_stochastic(-value, bits).bits, rounded.bits | 0x8000);
      ASSERT_TRUE(rounded.bits == 0x3FC1 || rounded.bits == 0x3FC2);
      up += rounded.bits == 0x3FC2 ? 1 : 0;
    }
    EXPECT_EQ(up, dropped);
  }
}

TEST(Codec, Bf16StochasticStaysFinite) {
  const float largest = std::numeric_limits<float>::max();
  EXPECT_EQ(bf16_stochastic(largest, 0xFFFF).bits, 0x7F7F);
  EXPECT_EQ(bf16_stochastic(-largest, 0xFFFF).bits, 0xFF7F);
  EXPECT_EQ(bf16_stochastic(0.0f, 0xFFFF).bits, 0);
  EXPECT_EQ(bf16_stochastic(-0.0f, 0xFFFF).bits, 0x8000);
}

TEST(Codec, E2m1NearestIsTheNearer) {
  const SmallFloat e2m1{2, 1, 1, 8};
  for (const float value : deciding_inputs(e2m1)) {
    ASSERT_EQ(e2m1_nearest(value), e2m1.nearest(value)) << value;
    ASSERT_EQ(e2m1_round_magnitude(std::fabs(value)), std::fabs(e2m1.value(e2m1.nearest(value)))) << value;
  }
}

TEST(Codec, E2m1NearestAtTheTies) {
  const float ties[] = {.25f, .75f, 1.25f, 1.75f, 2.5f, 3.5f, 5};
  const uint32_t even[] = {0, 2, 2, 4, 4, 6, 6};
  for (uint32_t i = 0; i < 7; ++i) {
    EXPECT_EQ(e2m1_nearest(std::nextafter(ties[i], 0.0f)), i);
    EXPECT_EQ(e2m1_nearest(ties[i]), even[i]);
    EXPECT_EQ(e2m1_nearest(std::nextafter(ties[i], 9.0f)), i + 1);
    EXPECT_EQ(e2m1_nearest(-ties[i]), even[i] | 8);
  }
  EXPECT_EQ(e2m1_nearest(-0.0f), 8u);
  EXPECT_EQ(e2m1_nearest(infinity), 7u);
  EXPECT_EQ(e2m1_nearest(-infinity), 15u);
  EXPECT_EQ(e2m1_nearest(quiet_nan), 7u);
  EXPECT_EQ(e2m1_nearest(-quiet_nan), 7u);
}

TEST(Codec, E2m1DecodesEveryCode) {
  for (uint32_t code = 0; code < 8; ++code) {
    EXPECT_EQ(e2m1_to_float(code), reference_e2m1_values[code]);
    EXPECT_EQ(e2m1_doubled(code), 2 * reference_e2m1_values[code]);
    EXPECT_EQ(e2m1_to_float(code | 8), -reference_e2m1_values[code]);
    EXPECT_EQ(e2m1_doubled(code | 8), -2 * reference_e2m1_values[code]);
    EXPECT_EQ(e2m1_nearest(e2m1_to_float(code | 8)), code | 8);
  }
  EXPECT_TRUE(std::signbit(e2m1_to_float(8)));
}

// Returns values at which roundings change: every 512th of the smallest step, their FP32 neighbours, tiny and huge
// ones.
std::vector<float> stochastic_inputs() {
  std::vector<float> values = {0, 1e-45f, 1e-38f, 0.25f, 100, 3e38f, infinity};
  for (int i = 1; i < 7 * 1024; ++i) {
    for (const float value : neighbours(static_cast<float>(i) / 1024)) values.push_back(value);
  }
  return values;
}

TEST(Codec, E2m1StochasticForEveryByte) {
  for (const float value : stochastic_inputs()) {
    for (int byte = 0; byte < 256; ++byte) {
      const auto expect = [&](float x) {
        const auto noise = static_cast<uint32_t>(byte);
        ASSERT_EQ(e2m1_stochastic_centred(x, noise), static_cast<uint32_t>(reference_e2m1_stochastic(x, byte, true)))
            << x << " byte " << byte;
        ASSERT_EQ(e2m1_stochastic_published(x, noise), static_cast<uint32_t>(reference_e2m1_stochastic(x, byte, false)))
            << x << " byte " << byte;
      };
      expect(value);
      expect(-value);
    }
  }
  EXPECT_EQ(e2m1_stochastic_centred(quiet_nan, 0), 7u);
  EXPECT_EQ(e2m1_stochastic_published(quiet_nan, 0), 7u);
}

// The means are over the 256 bytes. On multiples of step/256 offset by half a unit both roundings have the mean that
// they should have: the centred one is off by at most half a unit and by nothing on average, the published one always
// short.
TEST(Codec, E2m1StochasticMeans) {
  double centred_sum = 0;
  double published_sum = 0;
  int count = 0;
  for (int i = 0; i < 6 * 4096; ++i) {
    const float value = (static_cast<float>(i) + 0.5f) / 4096;
    const double step = value < 2 ? .5 : (value < 4 ? 1 : 2);
    double centred = 0;
    double published = 0;
    for (uint32_t byte = 0; byte < 256; ++byte) {
      centred += e2m1_to_float(e2m1_stochastic_centred(value, byte)) / 256.0;
      published += e2m1_to_float(e2m1_stochastic_published(value, byte)) / 256.0;
    }
    ASSERT_LE(std::fabs(centred - value), step / 512) << value;
    ASSERT_LE(published, value) << value;
    ASSERT_GT(published, value - step / 256) << value;
    centred_sum += (centred - value) / step;
    published_sum += (published - value) / step;
    ++count;
  }
  EXPECT_NEAR(centred_sum / count, 0, 1e-9);
  EXPECT_NEAR(published_sum / count, -0.5 / 256, 1e-9);
}

TEST(Codec, TensorScaleAtTheEdges) {
  const float largest = std::numeric_limits<float>::max();
  EXPECT_EQ(tensor_scale_of(0, 2688).encode, 1.0f);
  EXPECT_EQ(tensor_scale_of(infinity, 2688).encode, 1.0f);
  EXPECT_EQ(tensor_scale_of(quiet_nan, 2688).encode, largest);
  EXPECT_EQ(tensor_scale_of(1e-40f, 2688).encode, largest);
  EXPECT_EQ(tensor_scale_of(2688, 2688).encode, 1.0f);
  EXPECT_GT(tensor_scale_of(1e-40f, 2688).decode, 0.0f);  // subnormal, not flushed
  EXPECT_EQ(element_encode_scale(0, 1.0f), largest);
}

}  // namespace
}  // namespace nibble::test
