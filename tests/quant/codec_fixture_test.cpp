// Compares the codecs with digests of ml_dtypes' conversions (make_codec_fixture.py).
#include "tests/quant/codec_fixture.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "quant/format/codec.h"
#include "tests/quant/sha256.h"

namespace nibble::test {
namespace {

struct Codec {
  std::string name;
  uint32_t (*nearest)(float);  // null: there is none
  float (*decode)(uint32_t);
  uint32_t count;
};
const Codec codecs[] = {
    {"e2m1", [](float value) { return e2m1_nearest(value); }, [](uint32_t code) { return e2m1_to_float(code); }, 16},
    {"e4m3", [](float value) { return e4m3_nearest(value); }, [](uint32_t code) { return e4m3_to_float(code); }, 256},
    {"e5m2", [](float value) { return e5m2_nearest(value); }, [](uint32_t code) { return e5m2_to_float(code); }, 256},
    {"e8m0", nullptr, [](uint32_t code) { return e8m0_to_float(code); }, 256}};

std::string digest_of_codes(const Codec& codec, uint32_t count, uint32_t factor) {
  if (codec.nearest == nullptr) return "";
  std::vector<uint8_t> codes;
  for (uint32_t i = 0; i < count; ++i) {
    const float value = float_of_bits(i * factor);
    codes.push_back(static_cast<uint8_t>(codec.nearest(std::isnan(value) ? 0.0f : value)));
  }
  return sha256_prefix(codes);
}

TEST(CodecFixture, EveryFormatAgreesWithMlDtypes) {
  size_t index = 0;
  for (const CodecDigests& expected : codec_digests) {
    ASSERT_LT(index, std::size(codecs));
    const Codec& codec = codecs[index++];
    ASSERT_EQ(codec.name, expected.format);
    EXPECT_EQ(digest_of_codes(codec, 1u << 16, 1u << 16), expected.bf16) << codec.name;
    EXPECT_EQ(digest_of_codes(codec, 1u << 20, 0x9E3779B9u), expected.spread) << codec.name;
    std::vector<uint32_t> decoded;
    for (uint32_t code = 0; code < codec.count; ++code) {
      const float value = codec.decode(code);
      decoded.push_back(std::isnan(value) ? 0x7FC00000u : bits_of(value));
    }
    EXPECT_EQ(sha256_prefix(decoded), expected.decoded) << codec.name;
  }
  EXPECT_EQ(index, std::size(codecs));
}

}  // namespace
}  // namespace nibble::test
