// Checks what the quantiser guarantees, and what it refuses.
#include "quant/quantize/quantize.h"

#include <gtest/gtest.h>

#include <algorithm>

#include <limits>

#include "tests/quant/every_spec.h"
#include "tests/quant/reference_quantize.h"

namespace nibble::test {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
const NoiseStream noise{0x1234567890ABCDEF, 77, 5, 19, Purpose::grad_weight_dy};

TEST(Quantize, SmallBlocksBesideALargeOne) {
  std::vector<float> values(16 * 16, 0.0f);
  values[0] = 2688;                            // S_enc = 1: a block's d is its amax / 6
  values[16] = 6 * 0x1p-10f;                   // tie between scale bytes 0 and 1: even
  values[32] = 6 * 0x1.000002p-10f * 1.0001f;  // just above
  values[48] = 6 * 0x1p-9f;
  values[64] = -6 * 0x1p-12f;
  const Matrix matrix(16, 16, values);
  const Operand made = quantized({matrix.f32(), false, nvfp4(), {}});
  EXPECT_EQ(made.scales()[1], 0);
  EXPECT_EQ(made.codes()[8] & 15, 7);  // saturates as the GPU does, decodes to 0
  EXPECT_EQ(made.scales()[2], 1);
  EXPECT_EQ(made.scales()[3], 1);
  EXPECT_EQ(made.codes()[32] & 15, 15);
  EXPECT_EQ(made.decoded()[16], 0.0f);
  EXPECT_EQ(made.decoded()[48], 6 * 0x1p-9f);
  EXPECT_EQ(made.decoded()[0], 2688.0f);
}

// This holds for rules that compare errors, too: their sums must not depend on the order in which a square block is
// read. These matrices hold square blocks with two scales so nearly equal that row sums added up would choose another
// one for the transpose.
TEST(Quantize, SquareBlocksGiveTheTransposeTheSameValues) {
  for (const Matrix& weight : {uneven_matrix(512, 512), normal_matrix(512, 512, 62), normal_matrix(512, 512, 148)}) {
    int rules = 0;
    for (const OperandSpec& spec : every_rule()) {
      if (spec.block != BlockShape::square || spec.round != Rounding::nearest) continue;
      ++rules;
      const Operand straight = quantized({weight.bf16(), false, spec, noise});
      const Operand turned = quantized({weight.bf16(), true, spec, noise});
      const Matrix values(512, 512, straight.decoded());
      EXPECT_TRUE(values.transposed().values == turned.decoded()) << describe(spec);
    }
    EXPECT_EQ(rules, 5);
  }
}

TEST(Quantize, DecodedValuesAreAFixedPoint) {
  const Matrix matrix = normal_matrix(64, 256, 5);
  const Operand once = quantized({matrix.bf16(), false, nvfp4(), {}});
  Matrix decoded(64, 256, once.decoded());
  // The amax is the same: the largest element decodes to itself only up to rounding.
  size_t at = 0;
  while (std::fabs(matrix.values[at]) != once.amax()) ++at;
  decoded.values[at] = matrix.values[at];
  const Operand twice = quantized({decoded.f32(), false, nvfp4(), {}});
  EXPECT_EQ(twice.amax(), once.amax());
  EXPECT_EQ(twice.codes(), once.codes());
  EXPECT_EQ(twice.scales(), once.scales());
}

TEST(Quantize, NoiseDependsOnEveryFieldOfTheStream) {
  const Matrix matrix = normal_matrix(32, 64, 9);
  const auto codes = [&](const NoiseStream& stream) {
    return quantized({matrix.bf16(), false, nvfp4(BlockShape::row, Rounding::stochastic), stream}).codes();
  };
  std::vector<NoiseStream> streams(6, noise);
  streams[1].seed ^= 1;
  streams[2].step ^= 1;
  streams[3].micro_batch ^= 1;
  streams[4].tensor_id ^= 1;
  streams[5].purpose = Purpose::grad_input_dy;
  EXPECT_EQ(codes(noise), codes(noise));
  for (size_t i = 0; i < streams.size(); ++i) {
    for (size_t j = i + 1; j < streams.size(); ++j) EXPECT_NE(codes(streams[i]), codes(streams[j])) << i << " " << j;
  }
}

// Noise counters count the blocks of the whole operand, so the first rows do not depend on how many follow.
TEST(Quantize, NoiseOfARowDoesNotDependOnLaterRows) {
  Matrix matrix = normal_matrix(40, 64, 9);
  matrix.values[0] = 8;  // the amax of both
  const OperandSpec spec = nvfp4(BlockShape::row, Rounding::stochastic);
  const std::vector<uint8_t> whole = quantized({matrix.f32(), false, spec, noise}).codes();
  const std::vector<uint8_t> part = quantized({matrix.f32().slice(0, 9), false, spec, noise}).codes();
  EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin()));
}

TEST(Quantize, ReportsNonFiniteSources) {
  const float bad_values[] = {infinity, -infinity, std::numeric_limits<float>::quiet_NaN(),
                              -std::numeric_limits<float>::quiet_NaN()};
  for (const float bad : bad_values) {
    for (const size_t at : {size_t{0}, size_t{777}, size_t{1599}}) {
      Matrix matrix = normal_matrix(40, 40 * 2, 13);
      matrix.values.resize(1600 * 2);
      matrix.values[at] = bad;
      const Matrix poisoned(16 * 10, 20, matrix.values);
      EXPECT_EQ(count_non_finite(poisoned.f32()), 1);
      EXPECT_EQ(count_non_finite(poisoned.bf16()), 1);
      for (const Rounding round : {Rounding::nearest, Rounding::stochastic}) {
        for (const int rotate : {0, 16}) {
          const OperandSpec spec = nvfp4(BlockShape::row, round, rotate);
          const Operand made = quantized({at == 777 ? poisoned.f32() : poisoned.bf16(), true, spec, noise});
          EXPECT_FALSE(source_was_finite(made.tensor));
          EXPECT_FALSE(std::isfinite(made.amax()));
          for (const float value : made.decoded()) ASSERT_TRUE(std::isnan(value));
        }
      }
    }
  }
  const Matrix clean = normal_matrix(32, 32, 1);
  EXPECT_EQ(count_non_finite(clean.f32()), 0);
  EXPECT_TRUE(source_was_finite(quantized({clean.bf16(), false, nvfp4(), {}}).tensor));
}

// The matrix holds square blocks in which four and six have nearly the same error: as many elements at 4 units, which
// six rounds exactly, as at about 4.5, which four does, in random places. From block to block one of the latter grows
// by a unit in the last place, so that the errors pass each other by less than the rounding of their sums. A sum whose
// order depended on the orientation would then choose for W^T another scale than for W.
TEST(Quantize, NearTiesOfSquareTilesAreDecidedAlikeForTheTranspose) {
  constexpr size_t tiles = 2048;
  std::vector<float> values(tiles * 256);
  const NoiseStream stream{9, 0, 0, 0, Purpose::weight_init};
  for (size_t tile = 0; tile < tiles; ++tile) {
    std::vector<float> elements(256, 0.1f * 4.0f);
    for (size_t i = 128; i < 256; ++i) {
      const auto units = static_cast<uint32_t>((tile + i) / 128);
      elements[i] = float_of_bits(bits_of(0.1f * 4.5f) - 8 + units);
    }
    elements[0] = 0.1f * 6.0f;
    elements[255] = 0;
    for (size_t i = 255; i > 0; --i) {
      std::swap(elements[i], elements[random_block(stream, tile * 256 + i).word[0] % (i + 1)]);
    }
    std::copy(elements.begin(), elements.end(), values.begin() + static_cast<ptrdiff_t>(tile * 256));
  }
  const Matrix matrix(tiles * 16, 16, std::move(values));
  for (const ScaleRule rule : {ScaleRule::four_over_six, ScaleRule::four_over_six_mae}) {
    OperandSpec spec = nvfp4(BlockShape::square);
    spec.scale = rule;
    const Operand rows = quantized({matrix.f32(), false, spec, {}});
    const Operand columns = quantized({matrix.f32(), true, spec, {}});
    EXPECT_EQ(Matrix(16, tiles * 16, columns.decoded()).transposed().values, rows.decoded()) << name_of(rule);
    const std::vector<uint8_t> scales = rows.scales();
    EXPECT_NE(*std::min_element(scales.begin(), scales.end()), *std::max_element(scales.begin(), scales.end()));
  }
}

TEST(Quantize, ReportsOverflowMadeByTheRotation) {
  const Matrix matrix(1, 16, std::vector<float>(16, 3e38f));
  const Operand plain = quantized({matrix.f32(), false, nvfp4(), {}});
  EXPECT_TRUE(source_was_finite(plain.tensor));
  const Operand rotated = quantized({matrix.f32(), false, nvfp4(BlockShape::row, Rounding::nearest, 16), {}});
  // The sum of the signs is not zero, so one output is (number of + less number of -) / 4 times 3e38.
  EXPECT_FALSE(source_was_finite(rotated.tensor));
}

TEST(Quantize, AllZeroTensorDecodesToZero) {
  const Matrix zero(16, 128, std::vector<float>(2048, 0.0f));
  for (const OperandSpec& spec : every_rule()) {
    const Operand made = quantized({zero.bf16(), false, spec, noise});
    EXPECT_EQ(made.amax(), 0.0f);
    EXPECT_TRUE(source_was_finite(made.tensor));
    for (const float value : made.decoded()) ASSERT_EQ(value, 0.0f);
  }
}

TEST(Quantize, NoRows) {
  const Tensor empty(nullptr, DType::bf16, {0, 32});
  const Operand made = quantized({empty, false, nvfp4(), {}});
  EXPECT_EQ(made.amax(), 0.0f);
}

TEST(Quantize, DequantizeRoundsOnceToBf16) {
  const Matrix matrix = uneven_matrix(32, 64);
  const Operand made = quantized({matrix.f32(), false, nvfp4(), {}});
  std::vector<BFloat16> halves(32 * 64);
  dequantize(made.tensor, tensor_of(std::span(halves), {32, 64}));
  const std::vector<float> singles = made.decoded();
  for (size_t i = 0; i < halves.size(); ++i) {
    const uint8_t byte = made.codes()[i / 2];
    const uint32_t code = (i % 2 == 0 ? byte : byte >> 4) & 15u;
    const double exact =
        double{e2m1_to_float(code)} * reference_e4m3_value(made.scales()[i / 16]) * made.decode_scale();
    ASSERT_EQ(singles[i], static_cast<float>(exact));
    ASSERT_LE(std::fabs(to_float(halves[i]) - exact), std::fabs(exact) * 0x1p-8);
    ASSERT_EQ(halves[i], bf16_nearest_once(exact));
  }
}

TEST(Quantize, PlainFormatsAreViewsOrRoundedCopies) {
  const Matrix matrix = uneven_matrix(5, 7);
  OperandSpec spec;
  for (const bool transpose : {false, true}) {
    const Matrix operand = transpose ? matrix.transposed() : matrix;
    spec.format = Format::bf16;
    const Operand view = quantized({matrix.bf16(), transpose, spec, {}});
    EXPECT_EQ(view.tensor.values.data(), matrix.halves.data());
    EXPECT_EQ(view.tensor.transposed, transpose);
    EXPECT_EQ(view.decoded(), operand.rounded().values);
    const Operand rounded = quantized({matrix.f32(), transpose, spec, {}});
    EXPECT_EQ(rounded.tensor.values.dtype(), DType::bf16);
    EXPECT_EQ(rounded.decoded(), operand.rounded().values);
    EXPECT_TRUE(source_was_finite(rounded.tensor));
    spec.format = Format::f32;
    const Operand same = quantized({matrix.f32(), transpose, spec, {}});
    EXPECT_EQ(same.tensor.values.data(), matrix.values.data());
    const Operand widened = quantized({matrix.bf16(), transpose, spec, {}});
    EXPECT_EQ(widened.tensor.values.dtype(), DType::f32);
    EXPECT_EQ(widened.decoded(), operand.rounded().values);
  }
}

void expect_bad_config(const OperandSpec& spec, int64_t rows, int64_t inner) {
  Arena arena("test");
  try {
    allocate_operand(arena, spec, DType::bf16, rows, inner);
    ADD_FAILURE() << "accepted " << describe(spec);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_config);
    EXPECT_FALSE(error.remedy().empty());
  }
}

TEST(Quantize, LeavesTheChoiceOfSourceToTheCaller) {
  OperandSpec spec = nvfp4();
  spec.from = Source::saved;
  const Matrix matrix = normal_matrix(16, 16, 1);
  EXPECT_THROW(quantized({matrix.bf16(), false, spec, {}}), Error);
}

TEST(Quantize, RefusesWhatItCannotMake) {
  OperandSpec spec = nvfp4();
  expect_bad_config(spec, 16, 24);
  spec.block = BlockShape::square;
  expect_bad_config(spec, 24, 16);
  expect_bad_config(nvfp4(BlockShape::row, Rounding::nearest, 128), 16, 16);
  spec = OperandSpec{};
  spec.rotate = 16;
  expect_bad_config(spec, 16, 16);
  spec = OperandSpec{};
  spec.round = Rounding::stochastic;
  expect_bad_config(spec, 16, 16);
}

}  // namespace
}  // namespace nibble::test
