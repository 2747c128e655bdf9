#include "quant/wire/weight_codec.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>

#include "quant/format/codec.h"
#include "weights_layout.h"

namespace nibble {
namespace {

constexpr uint64_t block = 4096;
constexpr double largest_weight = 0x1.Ep127;

// ---- The rounding as docs/numerics.md states it, in double, by search ----

// Returns the one of `values`, ascending, that is nearest to x; of two, the one of the even index.
double nearest_of(const std::vector<double>& values, double x) {
  size_t best = 0;
  for (size_t i = 1; i < values.size(); ++i) {
    const double now = std::abs(values[i] - x);
    const double before = std::abs(values[best] - x);
    if (now < before || (now == before && i % 2 == 0)) best = i;
  }
  return values[best];
}
const std::vector<double> e2m1 = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
std::vector<double> e4m3() {
  std::vector<double> values;
  for (uint32_t code = 0; code < 0x7F; ++code) values.push_back(e4m3_to_float(code));
  return values;
}

double largest_of(const std::vector<double>& values, size_t begin, size_t count) {
  double largest = 0;
  for (size_t i = begin; i < begin + count; ++i) largest = std::max(largest, std::abs(values[i]));
  return largest;
}

std::vector<double> rounded_fp8(const std::vector<double>& values) {
  static const std::vector<double> codes = e4m3();
  std::vector<double> result;
  for (size_t group = 0; group < values.size(); group += 32) {
    double power = 0x1p-120;
    while (power * 448 < largest_of(values, group, 32)) power *= 2;
    for (size_t i = group; i < group + 32; ++i) {
      result.push_back(std::copysign(power * nearest_of(codes, std::abs(values[i]) / power), values[i]));
    }
  }
  return result;
}

std::vector<double> rounded_nvfp4(const std::vector<double>& values) {
  static const std::vector<double> codes = e4m3();
  // The quotient is taken in FP32, as the rules do.
  const auto sixth = [](double value) { return static_cast<double>(static_cast<float>(value) / 6.0f); };
  int exponent = 0;
  const double fraction = std::frexp(sixth(largest_of(values, 0, values.size())), &exponent);
  const double digits = std::ldexp(std::nearbyint(fraction * 16) / 16, exponent);  // four of them
  double power = 0x1p-120;
  while (power * 256 <= digits) power *= 2;
  std::vector<double> result;
  for (size_t group = 0; group < values.size(); group += 16) {
    const double scale = std::max(0x1p-6, nearest_of(codes, sixth(largest_of(values, group, 16)) / power));
    const float factor = 1.0f / static_cast<float>(scale * power);
    for (size_t i = group; i < group + 16; ++i) {
      const double magnitude = nearest_of(e2m1, std::abs(static_cast<float>(values[i]) * factor));
      result.push_back(std::copysign(magnitude * scale * power, values[i]));
    }
  }
  return result;
}

std::vector<double> rounded(WeightFormat format, const std::vector<double>& values) {
  return format == WeightFormat::fp8 ? rounded_fp8(values) : rounded_nvfp4(values);
}

// ---- A flat buffer and its way through packed bytes ----

struct Weights {
  std::vector<BFloat16> values;
  Layout layout;

  Weights(uint64_t elements, const std::vector<DecayingRange>& ranges)
      : values(elements), layout(layout_of(ranges, elements)) {}
  explicit Weights(uint64_t elements) : Weights(elements, {{.offset = 0, .count = elements, .decay = true}}) {}

  bool decays(uint64_t element) const {
    bool result = false;
    for_each_part(layout.tensors(), {element, element + 1},
                  [&](size_t tensor, Range) { result = layout.tensors()[tensor].decay; });
    return result;
  }
  // Fills normal deviates, each 16 of a size of their own, 2^0 to 2^-spread.
  Weights& fill_normal(unsigned seed, int spread, float scale = 1) {
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal(0, scale);
    int size = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      if (i % 16 == 0) size = static_cast<int>(generator() % static_cast<unsigned>(spread + 1));
      values[i] = bf16_nearest(std::ldexp(normal(generator), -size));
    }
    return *this;
  }
  std::vector<double> as_double(size_t begin, size_t count) const {
    std::vector<double> result;
    for (size_t i = begin; i < begin + count; ++i) result.push_back(to_float(values[i]));
    return result;
  }
};

struct Result {
  std::vector<uint8_t> packed;
  std::vector<BFloat16> values;
};

// Sends the weights through packed bytes, packed in parts of so many blocks of a tensor, as ranks would pack them.
Result through(WeightFormat format, Weights weights, uint64_t part_blocks = 1000) {
  Arena arena("test");
  const uint64_t elements = weights.values.size();
  const WeightCodec measured(arena, format, weights.layout);
  arena.commit();
  const WeightCodec codec(arena, format, weights.layout);
  Result result{std::vector<uint8_t>(codec.packed_bytes(), 0xAA), std::vector<BFloat16>(elements, BFloat16{0x1234})};
  const auto count = static_cast<int64_t>(elements);
  const Tensor packed = tensor_of(std::span(result.packed), {static_cast<int64_t>(result.packed.size())});
  std::vector<uint64_t> bounds;
  for (const TensorLayout& tensor : weights.layout.tensors()) {
    for (uint64_t i = 0; i < tensor.count; i += part_blocks * block) bounds.push_back(tensor.offset + i);
  }
  bounds.push_back(elements);
  for (size_t i = 0; i + 1 < bounds.size(); ++i) {
    codec.pack(tensor_of(std::span(weights.values), {count}), bounds[i], bounds[i + 1], packed);
  }
  codec.unpack(packed, tensor_of(std::span(result.values), {count}));
  return result;
}

class WeightCodecTest : public testing::TestWithParam<WeightFormat> {
 protected:
  Result through(const Weights& weights) { return nibble::through(GetParam(), weights); }
};
INSTANTIATE_TEST_SUITE_P(Formats, WeightCodecTest, testing::Values(WeightFormat::fp8, WeightFormat::nvfp4),
                         [](const auto& format) { return format.param == WeightFormat::fp8 ? "fp8" : "nvfp4"; });

void expect_values(const std::vector<BFloat16>& found, const std::vector<double>& expected) {
  for (size_t i = 0; i < expected.size(); ++i) {
    const double value = to_float(found[i]);
    ASSERT_EQ(value, expected[i]) << i;
    ASSERT_EQ(std::signbit(value), std::signbit(expected[i])) << i;
  }
}

TEST_P(WeightCodecTest, RoundsAsTheReference) {
  for (const int spread : {0, 3, 30}) {
    for (const float scale : {0.02f, 0x1p100f, 0x1p-118f, 0x1p-128f}) {
      const Weights weights = Weights(2 * block).fill_normal(static_cast<unsigned>(spread), spread, scale);
      const std::vector<BFloat16> found = through(weights).values;
      std::vector<double> expected = rounded(GetParam(), weights.as_double(0, block));
      const std::vector<double> second = rounded(GetParam(), weights.as_double(block, block));
      expected.insert(expected.end(), second.begin(), second.end());
      expect_values(found, expected);
    }
  }
}

// Every BF16 number up to the largest is once the largest one of its block.
TEST_P(WeightCodecTest, RoundingAgainChangesNothing) {
  constexpr uint32_t step = 61;
  constexpr uint32_t blocks = 0x7F80 / step + 1;
  Weights weights(blocks * block);
  weights.fill_normal(3, 6);
  for (uint32_t i = 0; i < blocks; ++i) {
    const double largest = to_float(BFloat16{static_cast<uint16_t>(i * step)});
    BFloat16* const first = weights.values.data() + i * block;
    for (uint32_t j = 0; j < block; ++j) first[j] = bf16_nearest(static_cast<float>(to_float(first[j]) / 8 * largest));
    first[i % block] = BFloat16{static_cast<uint16_t>(i * step)};
  }
  Weights again = weights;
  again.values = through(weights).values;
  EXPECT_NE(again.values, weights.values);
  EXPECT_EQ(through(again).values, again.values);
}

TEST_P(WeightCodecTest, KeepsZerosTheirSignsAndTheLargestNumbers) {
  Weights weights(block);
  weights.values[5] = BFloat16{0x8000};
  EXPECT_EQ(through(weights).values, weights.values);
  weights.values[6] = BFloat16{0x0001};  // 2^-133 vanishes under the smallest scale
  weights.values[8] = GetParam() == WeightFormat::fp8 ? BFloat16{0x8010} : BFloat16{0x8040};
  const std::vector<BFloat16> small = through(weights).values;
  EXPECT_EQ(small[6], BFloat16{});
  EXPECT_EQ(small[8], weights.values[8]);  // -2^-129, -2^-127: its smallest numbers
  weights.values[7] = BFloat16{0x7F7F};
  weights.values[4000] = BFloat16{0xFF70};
  const std::vector<BFloat16> found = through(weights).values;
  EXPECT_EQ(to_float(found[7]), largest_weight);
  EXPECT_EQ(to_float(found[4000]), -largest_weight);
  EXPECT_EQ(found[5], BFloat16{0x8000});
}

TEST_P(WeightCodecTest, WhatIsNotFiniteStaysSo) {
  for (const uint16_t bits :
       {uint16_t{0x7F80}, uint16_t{0xFF80}, uint16_t{0x7FC0}, uint16_t{0xFFC1}, uint16_t{0x7F81}}) {
    Weights weights = Weights(2 * block).fill_normal(1, 0);
    weights.values[77] = BFloat16{bits};
    const std::vector<BFloat16> found = through(weights).values;
    // Every weight that shares its largest scale becomes NaN: 32 in FP8, the block in NVFP4.
    const bool fp8 = GetParam() == WeightFormat::fp8;
    for (size_t i = 0; i < found.size(); ++i) {
      const bool lost = fp8 ? i / 32 == 77 / 32 : i < block;
      ASSERT_EQ(found[i] == BFloat16{0x7FC0}, lost) << i;
      ASSERT_EQ(is_finite(to_float(found[i])), !lost) << i;
    }
  }
}

// Returns weights of linear layers, others, and gaps, with boundaries inside blocks and inside groups of 32.
Weights mixed_weights() {
  Weights weights(9 * block + 176, {{.offset = 0, .count = 5000, .decay = false},
                                    {.offset = 5008, .count = 7280, .decay = true},
                                    {.offset = 12288, .count = 3 * block, .decay = true},
                                    {.offset = 24576, .count = 100, .decay = false},
                                    {.offset = 24688, .count = 200, .decay = true},
                                    {.offset = 24896, .count = 12000, .decay = true}});
  weights.fill_normal(9, 4);
  for (uint64_t i = 0; i < weights.values.size(); ++i) {
    bool inside = false;
    for_each_part(weights.layout.tensors(), {i, i + 1}, [&](size_t, Range) { inside = true; });
    if (!inside) weights.values[i] = BFloat16{};
  }
  weights.values[4999] = BFloat16{0x7F80};  // not rounded: spoils nothing beside it
  return weights;
}

TEST_P(WeightCodecTest, RoundsOnlyWhatDecaysInBlocksOfEachTensor) {
  const Weights weights = mixed_weights();
  const std::vector<BFloat16> found = through(weights).values;
  for (const TensorLayout& tensor : weights.layout.tensors()) {
    for (uint64_t first = 0; first < tensor.count; first += block) {
      const size_t count = std::min<size_t>(block, tensor.count - first);
      const size_t begin = tensor.offset + first;
      std::vector<double> expected = weights.as_double(begin, count);
      if (tensor.decay) {
        expected.resize(block);
        expected = rounded(GetParam(), expected);
      }
      size_t changed = 0;
      for (size_t i = 0; i < count; ++i) {
        ASSERT_EQ(to_float(found[begin + i]), expected[i]) << tensor.name << " " << first + i;
        changed += found[begin + i] != weights.values[begin + i] ? 1 : 0;
      }
      EXPECT_EQ(changed > 0, tensor.decay) << tensor.name << " " << first;
    }
  }
}

// What else the model has, and where the tensor lies, changes nothing.
TEST_P(WeightCodecTest, ATensorIsRoundedAlikeAnywhere) {
  Weights alone = Weights(5008).fill_normal(4, 3);
  Weights behind(5008 + 48, {{.offset = 0, .count = 40, .decay = true}, {.offset = 48, .count = 5008, .decay = true}});
  std::ranges::copy(alone.values, behind.values.begin() + 48);
  const std::vector<BFloat16> first = through(alone).values;
  const std::vector<BFloat16> second = through(behind).values;
  EXPECT_TRUE(std::equal(first.begin(), first.end(), second.begin() + 48));
}

// FP32 weights in a BF16 model travel unchanged.
TEST_P(WeightCodecTest, WeightsOfAnotherWidthTravelAsTheyAre) {
  std::vector<TensorLayout> tensors =
      layout_of({{0, block, true}, {block, 3000, true}, {7104, block, true}}, 11200).tensors();
  tensors[1].width = 4;
  const Layout layout({{.name = "all", .range = {0, 11200}}}, tensors);
  Arena arena("test");
  const WeightCodec measured(arena, GetParam(), layout);
  arena.commit();
  const WeightCodec codec(arena, GetParam(), layout);
  std::vector<uint8_t> weights(layout.weight_bytes());
  std::mt19937 generator(8);
  const uint64_t first = layout.weight_byte(block);
  for (uint64_t i = first; i < first + 4 * 3000; ++i) weights[i] = static_cast<uint8_t>(generator());
  std::vector<uint8_t> packed(codec.packed_bytes());
  std::vector<uint8_t> found(weights.size(), 0xAA);
  const auto tensor = [](std::vector<uint8_t>& bytes) {
    return tensor_of(std::span(bytes), {static_cast<int64_t>(bytes.size())});
  };
  codec.pack(tensor(weights), 0, layout.elements(), tensor(packed));
  codec.unpack(tensor(packed), tensor(found));
  EXPECT_EQ(found, weights);
}

TEST_P(WeightCodecTest, DoesNotDependOnThePartition) {
  const Weights weights = mixed_weights();
  const Result whole = through(weights);
  for (const uint64_t part : {1, 2, 5}) {
    const Result parts = nibble::through(GetParam(), weights, part);
    EXPECT_EQ(parts.packed, whole.packed);
    EXPECT_EQ(parts.values, whole.values);
  }
}

// Six blocks are full and rounded; the others travel in BF16.
TEST_P(WeightCodecTest, PacksAsManyBytesAsItSays) {
  const Weights weights = mixed_weights();
  Arena arena("test");
  const WeightCodec codec(arena, GetParam(), weights.layout);
  const uint64_t coded = GetParam() == WeightFormat::fp8 ? 4224 : 2320;
  EXPECT_EQ(codec.offset(5008), 2U * 5008);
  EXPECT_EQ(codec.offset(5008 + block), 2U * 5008 + coded);
  EXPECT_EQ(codec.offset(12288), 2U * 5008 + coded + 2U * (7280 - block));
  EXPECT_EQ(codec.packed_bytes(), 6 * coded + 2 * (weights.values.size() - 6 * block));
  EXPECT_EQ(codec.packed_bytes(), through(weights).packed.size());
}

}  // namespace
}  // namespace nibble
