// Checks that both layouts hold the same operand, and that every instruction-set level makes it with the same bits.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "quant/format/tile.h"
#include "quant/quantize/statistics.h"
#include "tests/quant/every_spec.h"

namespace nibble::test {
namespace {

const NoiseStream noise{0x1234567890ABCDEF, 77, 5, 19, Purpose::grad_weight_dy};
const SignStream signs{{0xFEDCBA0987654321, 77, 5, 19, Purpose::hadamard_signs}, 2};

struct Source {
  Tensor values;
  bool transpose = false;
};

std::vector<Source> sources_of(const Matrix& matrix, const Matrix& transposed) {
  return {{matrix.bf16()}, {matrix.f32()}, {transposed.bf16(), true}, {transposed.f32(), true}};
}

Operand made_of(const Source& source, const OperandSpec& spec, OperandLayout layout,
                InstructionSet level = InstructionSet::portable) {
  return quantized({source.values, source.transpose, spec, noise, signs}, layout, level);
}

// Reads an operand in tiles one element at a time, as the words of quant/format/tile.h say. Rows beyond the last are
// zero.
struct RowBytes {
  std::vector<uint8_t> codes, scales;
};
RowBytes rows_from_tiles(const QuantizedTensor& tensor) {
  const int64_t inner = tensor.inner;
  RowBytes bytes{std::vector<uint8_t>(static_cast<size_t>(tensor.rows * inner / 2)),
                 std::vector<uint8_t>(static_cast<size_t>(tensor.rows * inner / 16))};
  for (int64_t row = 0; row < (tensor.rows + 15) / 16 * 16; ++row) {
    for (int64_t k = 0; k < inner; ++k) {
      const int64_t tile = row / 16 * (inner / 16) + k / 16;
      const int64_t h = k % 16 / 8;
      const int64_t p = k % 8 / 4;
      const uint8_t byte = tensor.values.as<uint8_t>()[tile * 128 + 64 * h + 4 * (row % 16) + k % 4];
      const auto code = static_cast<uint8_t>(p == 0 ? byte & 15 : byte >> 4);
      const uint8_t scale = tensor.block_scales.as<uint8_t>()[tile * 16 + row % 16];
      if (row >= tensor.rows) {
        EXPECT_EQ(int{code}, 0);
        EXPECT_EQ(int{scale}, 0);
        continue;
      }
      const auto at = static_cast<size_t>(row * inner + k);
      bytes.codes[at / 2] = static_cast<uint8_t>(bytes.codes[at / 2] | code << (at % 2 * 4));
      bytes.scales[at / 16] = scale;
    }
  }
  return bytes;
}

void expect_same_statistics(const OperandStatistics& a, const OperandStatistics& b) {
  EXPECT_EQ(a.error_squares, b.error_squares);
  EXPECT_EQ(a.sum_products, b.sum_products);
  EXPECT_EQ(a.zeros, b.zeros);
  EXPECT_EQ(a.blocks, b.blocks);
  EXPECT_EQ(a.scales_subnormal, b.scales_subnormal);
  EXPECT_EQ(a.smallest_scale, b.smallest_scale);
  EXPECT_EQ(a.largest_scale, b.largest_scale);
}

std::vector<OperandSpec> every_spec() {
  std::vector<OperandSpec> specs;
  for (const OperandSpec& rule : every_rule()) {
    for (const OperandSpec& spec : every_rotation_of(rule)) specs.push_back(spec);
  }
  return specs;
}

const std::vector<std::pair<int64_t, int64_t>> shapes = {{48, 256}, {40, 128}, {1, 128}, {80, 272}, {96, 16}, {33, 48}};

TEST(QuantizeLevels, TilesHoldWhatRowsHold) {
  int compared = 0;
  for (const auto& [rows, inner] : shapes) {
    const Matrix matrix = uneven_matrix(rows, inner);
    const Matrix transposed = matrix.transposed();
    for (const OperandSpec& spec : every_spec()) {
      if (!fits_tiles(spec) || !fits(spec, rows, inner)) continue;
      SCOPED_TRACE(testing::Message() << describe(spec) << " " << rows << "x" << inner);
      for (const Source& source : sources_of(matrix, transposed)) {
        const Operand expected = made_of(source, spec, OperandLayout::rows);
        const Operand made = made_of(source, spec, OperandLayout::tiles);
        const RowBytes bytes = rows_from_tiles(made.tensor);
        ASSERT_TRUE(bytes.codes == expected.codes());
        ASSERT_TRUE(bytes.scales == expected.scales());
        ASSERT_EQ(made.amax(), expected.amax());
        ASSERT_EQ(made.decode_scale(), expected.decode_scale());
        ASSERT_TRUE(made.decoded() == expected.decoded());
        const QuantizeProblem problem{source.values, source.transpose, spec, noise, signs};
        expect_same_statistics(measure(problem, made.tensor), measure(problem, expected.tensor));
        if (HasFailure()) return;
        ++compared;
      }
    }
  }
  EXPECT_GT(compared, 1000);
}

TEST(QuantizeLevels, RowsOfTilesAreReadFromAnywhere) {
  const Matrix matrix = uneven_matrix(70, 64);
  const Operand made = made_of({matrix.bf16()}, nvfp4(), OperandLayout::tiles);
  const std::vector<float> whole = made.decoded();
  for (int64_t first = 0; first < 70; ++first) {
    for (const int64_t count : {int64_t{0}, int64_t{1}, int64_t{5}, int64_t{16}, int64_t{33}}) {
      if (first + count > 70) continue;
      std::vector<float> part(static_cast<size_t>(count * 64));
      dequantize_rows(made.tensor, first, Tensor(part.data(), DType::f32, {count, 64}));
      ASSERT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + first * 64)) << first << " " << count;
    }
  }
  std::vector<float> upper(static_cast<size_t>(38 * 64));
  dequantize(rows_of(made.tensor, 32, 70), tensor_of(std::span(upper), {38, 64}));
  EXPECT_TRUE(std::equal(upper.begin(), upper.end(), whole.begin() + 32 * 64));
  EXPECT_THROW(rows_of(made.tensor, 8, 24), Error);
}

void expect_equal_bytes(const Operand& made, const Operand& expected) {
  ASSERT_EQ(made.amax(), expected.amax());
  ASSERT_EQ(made.decode_scale(), expected.decode_scale());
  ASSERT_TRUE(made.scales() == expected.scales());
  ASSERT_TRUE(made.codes() == expected.codes());
}

void expect_equal_levels(const Source& source, const OperandSpec& spec) {
  for (const OperandLayout layout : {OperandLayout::rows, OperandLayout::tiles}) {
    if (layout == OperandLayout::tiles && !fits_tiles(spec)) continue;
    const Operand expected = made_of(source, spec, layout);
    for (const InstructionSet level : available_instruction_sets()) {
      SCOPED_TRACE(testing::Message() << name_of(level) << " " << describe(spec) << (source.transpose ? " columns" : "")
                                      << (layout == OperandLayout::tiles ? " tiles" : "") << " of "
                                      << name_of(source.values.dtype()));
      expect_equal_bytes(made_of(source, spec, layout, level), expected);
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

TEST(QuantizeLevels, AreEqualForEverySpec) {
  for (const auto& [rows, inner] : shapes) {
    const Matrix matrix = uneven_matrix(rows, inner);
    const Matrix transposed = matrix.transposed();
    for (const OperandSpec& spec : every_spec()) {
      if (spec.format != Format::nvfp4 || spec.rotate > 16 || !fits(spec, rows, inner)) continue;
      for (const Source& source : sources_of(matrix, transposed)) {
        expect_equal_levels(source, spec);
        if (HasFatalFailure()) return;
      }
    }
  }
}

// Returns the rules that SIMD kernels may implement, rotated and not.
std::vector<OperandSpec> rules_of_recipes() {
  std::vector<OperandSpec> specs;
  for (const Rounding round : {Rounding::nearest, Rounding::stochastic, Rounding::stochastic_published}) {
    for (const ScaleRule scale : {ScaleRule::amax, ScaleRule::four_over_six}) {
      for (const int rotate : {0, 16}) {
        OperandSpec spec = nvfp4(BlockShape::row, round, rotate);
        spec.scale = scale;
        if (is_supported(spec)) specs.push_back(spec);
      }
    }
  }
  return specs;
}

// The blocks have the scale 1 and the factor 1, so that elements are at every 512th of a step of the grid, and up to
// three units in the last place beside it: every decision of every rounding, on both sides.
TEST(QuantizeLevels, AreEqualAtEveryThreshold) {
  for (const OperandSpec& spec : rules_of_recipes()) {
    if (spec.rotate != 0) continue;
    std::vector<float> values;
    for (uint32_t step = 0; step <= 3072; ++step) {
      const float at = static_cast<float>(step) / 512.0f;
      for (const int ulps : {-3, -2, -1, 0, 1, 2, 3}) {
        if (values.size() % 16 == 0) values.push_back(6);
        const float beside = step == 0 ? std::ldexp(static_cast<float>(ulps), -140)
                                       : float_of_bits(bits_of(at) + static_cast<uint32_t>(ulps));
        values.push_back(step % 2 == 0 ? beside : -beside);
      }
    }
    values.resize(values.size() / 16 * 16);
    values.insert(values.end(), 16, -0.0f);
    values.back() = largest_of_tensor(spec);  // the tensor scale is 1
    const auto blocks = static_cast<int64_t>(values.size() / 16);
    const Matrix rows(blocks, 16, values);
    ASSERT_EQ(made_of({rows.f32()}, spec, OperandLayout::rows).decode_scale(), 1.0f);
    // The blocks with their noise stand as one row, and as rows of one block.
    const Matrix row(1, blocks * 16, values);
    for (const Matrix& matrix : {rows, row}) {
      expect_equal_levels({matrix.f32()}, spec);
      expect_equal_levels({matrix.transposed().f32(), true}, spec);
      if (HasFatalFailure()) return;
    }
  }
}

// The blocks hold ties of stochastic rounding, under both candidates of four over six: where the errors of the
// candidates are near each other, the rounding of a tie decides which is chosen.
TEST(QuantizeLevels, AreEqualWhereTiesDecideFourOverSix) {
  OperandSpec spec = nvfp4(BlockShape::row, Rounding::stochastic);
  spec.scale = ScaleRule::four_over_six;
  const NoiseStream stream{5, 0, 0, 0, Purpose::weight_init};
  std::vector<float> values(size_t{1} << 19);
  for (size_t i = 0; i < values.size(); ++i) {
    const uint32_t drawn = random_block(stream, i).word[0];
    const uint32_t tie = 2 * (drawn % 512) + 1;
    const float ties[] = {static_cast<float>(tie) / 1024.0f, static_cast<float>(tie) / 512.0f + 2.0f,
                          static_cast<float>(tie) / 512.0f + 4.0f};
    values[i] = i % 16 == 0 ? 6.0f : ties[drawn >> 16 & 1u];
    if ((drawn >> 20) % 4 == 0 && i % 16 != 0) values[i] = ties[2];
  }
  values.back() = largest_of_tensor(spec);  // the tensor scale is 1
  const Matrix row(1, static_cast<int64_t>(values.size()), values);
  const Operand made = made_of({row.f32()}, spec, OperandLayout::rows);
  ASSERT_EQ(made.decode_scale(), 1.0f);
  const std::vector<uint8_t> scales = made.scales();
  const auto sixes = std::count(scales.begin(), scales.end(), scales[0]);
  EXPECT_GT(sixes, static_cast<int64_t>(scales.size()) / 8);
  EXPECT_LT(sixes, static_cast<int64_t>(scales.size()) * 7 / 8);
  expect_equal_levels({row.f32()}, spec);
}

// Zeros that are rotated with the signs of a row of the Hadamard matrix become -0, whose code is 8. Of 8192 blocks of
// drawn signs some have such signs.
TEST(QuantizeLevels, RowsBeyondTheLastAreZeroUnderAllSigns) {
  OperandSpec spec = nvfp4(BlockShape::row, Rounding::nearest, 16);
  spec.signs = Signs::step;
  std::vector<float> values(2 * 8192 * 16, 0.0f);
  std::fill_n(values.begin(), values.size() / 2, 1.0f);
  const Matrix matrix(2, 8192 * 16, values);
  const Operand expected = made_of({matrix.bf16()}, spec, OperandLayout::rows);
  const std::vector<uint8_t> codes = expected.codes();
  ASSERT_TRUE(std::any_of(codes.begin() + static_cast<ptrdiff_t>(codes.size() / 2), codes.end(),
                          [](uint8_t byte) { return byte != 0; }));
  for (const InstructionSet level : available_instruction_sets()) {
    const Operand made = made_of({matrix.bf16()}, spec, OperandLayout::tiles, level);
    const RowBytes bytes = rows_from_tiles(made.tensor);
    EXPECT_TRUE(bytes.codes == codes) << name_of(level);
    if (HasFailure()) return;
  }
}

// The magnitudes are random over all of FP32's range: scales that become zero, saturate or are subnormal, sums that
// need the smallest numbers, signed zeros.
TEST(QuantizeLevels, AreEqualAtExtremes) {
  const NoiseStream stream{3, 0, 0, 0, Purpose::weight_init};
  for (uint64_t trial = 0; trial < 24; ++trial) {
    std::vector<float> values(64 * 64);
    for (size_t i = 0; i < values.size(); ++i) {
      const PhiloxBlock random = random_block(stream, trial << 20 | i);
      const PhiloxBlock block = random_block(stream, trial << 20 | 1 << 16 | i / 16);
      // Exponents of a block lie within 2^12 of each other, except for a few.
      const int center = static_cast<int>(block.word[0] % 250);
      int exponent = center - static_cast<int>(random.word[0] % 12) - (random.word[1] % 64 == 0 ? 40 : 0);
      if (trial % 3 == 0) exponent = static_cast<int>(random.word[1] % 240);
      if (trial % 3 == 1) exponent = exponent % 30 + static_cast<int>(trial);
      exponent = std::clamp(exponent, 0, 250);
      const bool zero = random.word[3] % 16 == 0 || block.word[1] % 16 == 0;
      const uint32_t magnitude = zero ? 0 : static_cast<uint32_t>(exponent) << 23 | (random.word[2] & 0x7FFFFFu);
      values[i] = float_of_bits(magnitude | (random.word[3] & 0x80000000u));
    }
    const Matrix matrix(64, 64, values);
    const Matrix transposed = matrix.transposed();
    for (OperandSpec spec : rules_of_recipes()) {
      for (const Source& source : sources_of(matrix, transposed)) {
        expect_equal_levels(source, spec);
        spec.signs = spec.rotate != 0 ? Signs::step : Signs::fixed;
        expect_equal_levels(source, spec);
        if (HasFatalFailure()) return;
      }
    }
    expect_equal_levels({matrix.bf16()}, nvfp4(BlockShape::square));
    expect_equal_levels({matrix.f32(), true}, nvfp4(BlockShape::square, Rounding::stochastic));
  }
}

TEST(QuantizeLevels, ReportNonFiniteSources) {
  for (const float bad : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::quiet_NaN()}) {
    for (const size_t at : {size_t{0}, size_t{801}, size_t{40 * 32 - 1}}) {
      std::vector<float> values = normal_matrix(40, 32, 13).values;
      values[at] = bad;
      const Matrix matrix(40, 32, values);
      const Matrix transposed = matrix.transposed();
      for (const OperandSpec& spec : rules_of_recipes()) {
        for (const Source& source : sources_of(matrix, transposed)) {
          for (const InstructionSet level : available_instruction_sets()) {
            const Operand made = made_of(source, spec, OperandLayout::tiles, level);
            ASSERT_FALSE(source_was_finite(made.tensor)) << name_of(level) << " " << describe(spec);
            ASSERT_TRUE(std::isnan(made.decode_scale()));
          }
        }
      }
    }
  }
}

TEST(QuantizeLevels, PairsAreEqual) {
  for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{64, 80}, {160, 144}, {272, 528}}) {
    const Matrix matrix = uneven_matrix(rows, cols);
    for (const Tensor& source : {matrix.bf16(), matrix.f32()}) {
      for (const OperandSpec& row_spec : rules_of_recipes()) {
        for (const OperandSpec& column_spec : rules_of_recipes()) {
          const Operand expected_rows = made_of({source, false}, row_spec, OperandLayout::tiles);
          const Operand expected_columns = made_of({source, true}, column_spec, OperandLayout::tiles);
          for (const InstructionSet level : available_instruction_sets()) {
            Operand made_rows{std::make_unique<Arena>("rows"), {}};
            Operand made_columns{std::make_unique<Arena>("columns"), {}};
            for (int pass = 0; pass < 2; ++pass) {
              made_rows.tensor =
                  allocate_operand(*made_rows.arena, row_spec, source.dtype(), rows, cols, OperandLayout::tiles);
              made_columns.tensor =
                  allocate_operand(*made_columns.arena, column_spec, source.dtype(), cols, rows, OperandLayout::tiles);
              if (pass == 0) {
                made_rows.arena->commit();
                made_columns.arena->commit();
              }
            }
            cpu::quantize_pair_with(level, {{source, false, row_spec, noise, signs},
                                            {source, true, column_spec, noise, signs},
                                            made_rows.tensor,
                                            made_columns.tensor});
            SCOPED_TRACE(testing::Message()
                         << name_of(level) << " " << describe(row_spec) << " with " << describe(column_spec));
            expect_equal_bytes(made_rows, expected_rows);
            expect_equal_bytes(made_columns, expected_columns);
            if (HasFatalFailure()) return;
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace nibble::test
