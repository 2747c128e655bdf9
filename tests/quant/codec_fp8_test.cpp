// Compares E4M3, E5M2 and E8M0 with an exhaustive search in double precision.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "quant/format/codec.h"
#include "tests/quant/codec_oracle.h"
#include "tests/quant/reference_quantize.h"

namespace nibble::test {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
const float quiet_nan = std::numeric_limits<float>::quiet_NaN();
constexpr SmallFloat e4m3{4, 3, 7, 0x7F};
constexpr SmallFloat e5m2{5, 2, 15, 0x7C};

TEST(CodecFp8, TheOracleKnowsTheLimits) {
  EXPECT_EQ(e4m3.largest(), 448);
  EXPECT_EQ(e4m3.value(8), 0x1p-6);
  EXPECT_EQ(e4m3.value(1), 0x1p-9);
  EXPECT_EQ(e5m2.largest(), 57344);
  EXPECT_EQ(e5m2.value(4), 0x1p-14);
  EXPECT_EQ(e5m2.value(1), 0x1p-16);
}

TEST(CodecFp8, EveryCodeIsDecoded) {
  for (uint32_t code = 0; code < 256; ++code) {
    const uint32_t magnitude = code & 0x7F;
    if (magnitude < e4m3.count) {
      EXPECT_EQ(bits_of(e4m3_to_float(code)), bits_of(static_cast<float>(e4m3.value(code)))) << code;
      EXPECT_EQ(e4m3_nearest(e4m3_to_float(code)), code);
    } else {
      EXPECT_TRUE(std::isnan(e4m3_to_float(code)));
    }
    if (magnitude < e5m2.count) {
      EXPECT_EQ(bits_of(e5m2_to_float(code)), bits_of(static_cast<float>(e5m2.value(code)))) << code;
      EXPECT_EQ(e5m2_nearest(e5m2_to_float(code)), code);
    } else {
      EXPECT_EQ(std::isnan(e5m2_to_float(code)), magnitude > 0x7C) << code;
    }
  }
  EXPECT_EQ(e5m2_to_float(0x7C), infinity);
  EXPECT_EQ(e5m2_to_float(0xFC), -infinity);
}

TEST(CodecFp8, NearestIsTheNearer) {
  for (const float value : deciding_inputs(e4m3)) ASSERT_EQ(e4m3_nearest(value), e4m3.nearest(value)) << value;
  for (const float value : deciding_inputs(e5m2)) ASSERT_EQ(e5m2_nearest(value), e5m2.nearest(value)) << value;
  for (const float nan : {quiet_nan, -quiet_nan, float_of_bits(0x7F800001), float_of_bits(0xFFFFFFFF)}) {
    EXPECT_EQ(e4m3_nearest(nan), 0x7Fu);
    EXPECT_EQ(e5m2_nearest(nan), 0x7Fu);
  }
}

TEST(CodecFp8, SubnormalE4m3RoundsUpToTheNeighbour) {
  for (const float value : deciding_inputs(e4m3)) {
    if (value < 0 || value > e4m3_min_normal) continue;
    ASSERT_EQ(e4m3_subnormal_up(value), e4m3.up(value)) << value;
  }
}

// Returns how many of the 2^24 noise values round up, by running through all of them.
uint32_t ups_of_all_noise(float value, uint32_t low) {
  uint32_t ups = 0;
  uint32_t others = 0;
  for (uint32_t noise = 0; noise < 1u << 24; ++noise) {
    const uint32_t code = e4m3_stochastic(value, noise);
    ups += code == low + 1 ? 1 : 0;
    others += code != low && code != low + 1 ? 1 : 0;
  }
  EXPECT_EQ(others, 0u) << value;
  return ups;
}

// Returns the share of the step above e4m3.down(value) that a value has covered, in 2^-24 of it: exact in double.
double covered(double value) {
  const uint32_t low = e4m3.down(value);
  if (low + 1 == e4m3.count) return 0;
  return (value - e4m3.value(low)) / (e4m3.value(low + 1) - e4m3.value(low)) * 0x1p24;
}

TEST(CodecFp8, E4m3StochasticHasExactProbabilities) {
  for (const float value :
       {0.0f,       0x1p-149f,      0x1p-34f, 0x1.8p-33f, 0x1p-10f, 0x1.7p-9f, 0.00401f, 0.0136719f,
        0.0156249f, 0x1.ffffffp-7f, 0x1p-6f,  0.0166f,    0.3f,     1.0f,      1.0625f,  3.14159f,
        17.77f,     239.99f,        415.9f,   416.0001f,  447.99f,  448.0f,    449.0f,   infinity}) {
    const uint32_t low = e4m3.down(value);
    ASSERT_EQ(ups_of_all_noise(value, low), static_cast<uint32_t>(covered(value))) << value;
  }
}

// On many more inputs the noise values that round up are the last ones, and so many that the mean is the value.
TEST(CodecFp8, E4m3StochasticIsUnbiased) {
  std::vector<float> inputs;
  for (uint32_t code = 0; code + 1 < e4m3.count; ++code) {
    for (int i = 0; i < 33; ++i) {
      const double inside = e4m3.value(code) + (e4m3.value(code + 1) - e4m3.value(code)) * i / 33;
      for (const float value : neighbours(static_cast<float>(inside))) inputs.push_back(std::fmax(value, 0.0f));
    }
  }
  for (const float value : inputs) {
    const uint32_t low = e4m3.down(value);
    const double ups = std::floor(covered(value));
    if (value >= e4m3_min_normal) {
      ASSERT_EQ(ups, covered(value)) << "normal numbers lose nothing: " << value;
    }
    const uint32_t first_up = (1u << 24) - static_cast<uint32_t>(ups);
    for (const uint32_t noise : {0u, first_up / 2, first_up - 1, first_up, (1u << 24) - 1}) {
      if (noise == 1u << 24) continue;
      ASSERT_EQ(e4m3_stochastic(value, noise), low + (noise >= first_up ? 1 : 0)) << value;
    }
  }
}

TEST(CodecFp8, E4m3StochasticAtTheEdges) {
  for (const uint32_t noise : {0u, 1u, (1u << 24) - 1}) {
    EXPECT_EQ(e4m3_stochastic(quiet_nan, noise), 0x7Fu);
    EXPECT_EQ(e4m3_stochastic(-0.0f, noise), 0u);
    EXPECT_EQ(e4m3_stochastic(std::numeric_limits<float>::max(), noise), 0x7Eu);
    for (uint32_t code = 0; code < e4m3.count; ++code) {
      ASSERT_EQ(e4m3_stochastic(e4m3_to_float(code), noise), code) << "a number of the format stays";
    }
  }
}

double power_of_two(uint32_t code) {
  return std::ldexp(1.0, static_cast<int>(code) - 127);
}

TEST(CodecFp8, E8m0DecodesEveryCode) {
  for (uint32_t code = 0; code < 255; ++code) {
    EXPECT_EQ(static_cast<double>(e8m0_to_float(code)), power_of_two(code));
    EXPECT_EQ(e8m0_down(e8m0_to_float(code)), code);
    EXPECT_EQ(e8m0_up(e8m0_to_float(code)), code);
  }
  EXPECT_TRUE(std::isnan(e8m0_to_float(255)));
}

TEST(CodecFp8, E8m0DownAndUpAreTheNeighbours) {
  std::vector<float> inputs;
  for (uint32_t code = 0; code < 255; ++code) {
    for (const double scale : {1.0, 1.5}) {
      for (const float value : neighbours(static_cast<float>(power_of_two(code) * scale))) inputs.push_back(value);
    }
  }
  for (uint32_t high = 0; high <= 0x7F80; ++high) inputs.push_back(float_of_bits(high << 16));
  for (uint32_t i = 0; i < 0x8000; ++i) inputs.push_back(float_of_bits(i * 0x9E3779B9u % 0x7F800000u));
  inputs.push_back(-0.0f);
  for (const float value : inputs) {
    uint32_t down = 0;
    while (down < 254 && power_of_two(down + 1) <= value) ++down;
    uint32_t up = 0;
    while (up < 254 && power_of_two(up) < value) ++up;
    ASSERT_EQ(e8m0_down(value), down) << value;
    ASSERT_EQ(e8m0_up(value), up) << value;
  }
}

TEST(CodecFp8, GuardedScaleNeverClips) {
  for (uint32_t code = 0; code < 126; ++code) {
    const auto low = static_cast<float>(e4m3.value(code));
    const auto high = static_cast<float>(e4m3.value(code + 1));
    for (int i = 0; i <= 64; ++i) {
      const float d = low + (high - low) * static_cast<float>(i) / 64;
      if (d > 448.0f * 16 / 17) continue;
      const uint32_t scale = block_scale_guarded(d);
      ASSERT_EQ(scale, static_cast<uint32_t>(reference_guarded_scale(d))) << d;
      ASSERT_GE(e4m3_to_float(scale), d * (1 - 0x1p-23f)) << d;
    }
  }
  EXPECT_EQ(block_scale_guarded(0), 0u);
  EXPECT_EQ(block_scale_guarded(1e-30f), 1u);
  EXPECT_EQ(block_scale_guarded(quiet_nan), 0x7Eu);
  EXPECT_EQ(block_scale_nearest(quiet_nan), 0x7Eu);
  EXPECT_EQ(block_scale_nearest(infinity), 0x7Eu);
}

}  // namespace
}  // namespace nibble::test
