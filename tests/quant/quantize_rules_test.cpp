// Compares every rule of the quantiser with the obvious one, bit by bit: codes, block scales, outer scales, tensor
// scales.
#include <gtest/gtest.h>

#include <limits>
#include <tuple>

#include "tests/quant/every_spec.h"
#include "tests/quant/reference_quantize.h"

namespace nibble::test {
namespace {

const NoiseStream noise{0x1234567890ABCDEF, 77, 5, 19, Purpose::grad_weight_dy};
const SignStream signs{{0xFEDCBA0987654321, 77, 5, 19, Purpose::hadamard_signs}, 2};

struct Source {
  bool f32 = false;
  bool transpose = false;  // the matrix is [inner, rows]
  float given_amax = 0;
};

// Counts how often each kind of decision was seen: a test whose data never reach a case proves nothing about it.
struct Seen {
  int64_t blocks = 0, zero_scales = 0, subnormal_scales = 0, largest_scales = 0, non_finite = 0;
};

void count(const OperandSpec& spec, const ReferenceResult& expected, Seen& seen) {
  seen.non_finite += std::isfinite(expected.amax) ? 0 : 1;
  if (traits_of(spec.format).block_scale != ScaleCode::e4m3) return;
  for (const uint8_t scale : expected.scales) {
    ++seen.blocks;
    seen.zero_scales += scale == 0 ? 1 : 0;
    seen.subnormal_scales += scale > 0 && scale < 8 ? 1 : 0;
    seen.largest_scales += scale == 0x7E ? 1 : 0;
  }
}

void expect_equals_reference(const Matrix& matrix, const OperandSpec& spec, const Source& from, Seen& seen) {
  SCOPED_TRACE(testing::Message() << describe(spec) << (from.transpose ? " transposed " : " ") << matrix.rows << "x"
                                  << matrix.cols << (from.f32 ? " f32" : " bf16"));
  const Matrix source = from.f32 ? matrix : matrix.rounded();
  const Matrix operand = from.transpose ? source.transposed() : source;
  ReferenceProblem problem{operand.values, operand.rows, operand.cols, spec, noise};
  problem.signs = signs;
  problem.given_amax = from.given_amax;
  const ReferenceResult expected = reference_quantize(problem);
  QuantizeProblem quantize_problem{from.f32 ? source.f32() : source.bf16(), from.transpose, spec, noise, signs};
  quantize_problem.amax = from.given_amax;
  const Operand made = quantized(quantize_problem);
  count(spec, expected, seen);
  ASSERT_EQ(source_was_finite(made.tensor), std::isfinite(expected.amax));
  if (!std::isfinite(expected.amax)) {
    EXPECT_TRUE(std::isnan(made.decode_scale()));
    return;
  }
  EXPECT_EQ(made.amax(), expected.amax);
  EXPECT_EQ(made.decode_scale(), expected.decode);
  EXPECT_EQ(made.outer(), expected.outer);
  EXPECT_TRUE(made.scales() == expected.scales);
  EXPECT_TRUE(made.codes() == expected.codes);
}

void expect_equals_reference(const Matrix& matrix, const OperandSpec& spec, Seen& seen) {
  for (const bool transpose : {false, true}) {
    const int64_t rows = transpose ? matrix.cols : matrix.rows;
    const int64_t inner = transpose ? matrix.rows : matrix.cols;
    if (!fits(spec, rows, inner)) continue;
    for (const bool f32 : {false, true}) expect_equals_reference(matrix, spec, {f32, transpose}, seen);
  }
}

TEST(QuantizeRules, ThereAreAsManyAsExpected) {
  int nvfp4_rules = 0;
  int others = 0;
  for (const OperandSpec& spec : every_rule()) ++(spec.format == Format::nvfp4 ? nvfp4_rules : others);
  // Rules for rows: amax with 3 roundings, 3 rules of four over six with 2, search, rms, each under 2 outer scales; 5
  // corrections of MS-EDEN. Rules for square blocks: amax with 3, four over six with 6, search.
  EXPECT_EQ(nvfp4_rules, 2 * (3 + 6 + 1 + 1) + 5 + 10);
  // MXFP4 has 2 scales with 2 roundings, and rms; each MXFP8 2 scales; each FP8 one.
  EXPECT_EQ(others, 5 + 2 * 2 + 2);
}

TEST(QuantizeRules, EveryRuleOnManyShapes) {
  const std::tuple<int64_t, int64_t> shapes[] = {{1, 128}, {128, 1}, {7, 32}, {32, 48}, {33, 256}, {128, 144}};
  Seen seen;
  for (const auto& [rows, cols] : shapes) {
    const Matrix matrix = uneven_matrix(rows, cols);
    for (const OperandSpec& spec : every_rule()) expect_equals_reference(matrix, spec, seen);
  }
  EXPECT_GT(seen.zero_scales, 0);
  EXPECT_GT(seen.subnormal_scales, 0);
  EXPECT_GT(seen.largest_scales, 0);
  EXPECT_LT(seen.zero_scales + seen.subnormal_scales, seen.blocks / 2);
}

// An operand is made in ranges of 16 rows by 2048 positions, a transposed one of 256 rows by 128.
TEST(QuantizeRules, MoreThanOneRangeOfTheParallelCut) {
  Seen seen;
  const OperandSpec guarded = nvfp4(BlockShape::row, Rounding::stochastic);
  expect_equals_reference(uneven_matrix(17, 16 * 300), guarded, {false, false}, seen);
  expect_equals_reference(uneven_matrix(16 * 17, 16 * 18), guarded, {true, true}, seen);
  expect_equals_reference(uneven_matrix(256, 272), nvfp4(BlockShape::row, Rounding::ms_eden), {true, true}, seen);
}

// FP8 has no blocks, so it takes any inner axis.
TEST(QuantizeRules, Fp8OnOddShapes) {
  Seen seen;
  for (const Format format : {Format::fp8_e4m3, Format::fp8_e5m2}) {
    const OperandSpec spec{.format = format};
    for (const auto& [rows, cols] : {std::tuple{1, 1}, {3, 17}, {19, 131}, {129, 257}})
      expect_equals_reference(uneven_matrix(rows, cols), spec, seen);
  }
}

// Delayed scaling takes the amax of earlier steps, below and above this tensor's; elements beyond it saturate.
TEST(QuantizeRules, Fp8WithAGivenAmax) {
  const Matrix matrix = uneven_matrix(33, 48);
  Seen seen;
  for (const Format format : {Format::fp8_e4m3, Format::fp8_e5m2}) {
    OperandSpec spec{.format = format};
    spec.history = 16;
    for (const float amax : {0.37f, 1e-30f, 1e5f}) {
      for (const bool transpose : {false, true}) expect_equals_reference(matrix, spec, {true, transpose, amax}, seen);
    }
  }
  // The history is to learn the tensor's own amax.
  QuantizeProblem problem{matrix.f32(), false, {.format = Format::fp8_e4m3}, {}, {}};
  problem.spec.history = 16;
  problem.amax = 0.37f;
  EXPECT_EQ(quantized(problem).amax(), largest_magnitude(matrix.values));
}

TEST(QuantizeRules, EveryRotationOfEveryRule) {
  const Matrix matrix = uneven_matrix(128, 40);
  Seen seen;
  for (const OperandSpec& rule : every_rule()) {
    for (const OperandSpec& spec : every_rotation_of(rule)) {
      if (spec.rotate == 0) continue;
      expect_equals_reference(matrix, spec, {spec.rotations == 1, true}, seen);
    }
  }
  EXPECT_GT(seen.blocks, 0);
}

TEST(QuantizeRules, RotationsAcrossSignChunks) {
  Seen seen;
  for (const Format format : {Format::nvfp4, Format::mxfp8_e4m3, Format::fp8_e4m3}) {
    for (const OperandSpec& spec : every_rotation_of({.format = format}))
      expect_equals_reference(uneven_matrix(18, 3 * 128), spec, seen);
  }
  // The last chunk of 128 is not whole.
  for (const int points : {16, 32, 64}) {
    OperandSpec spec{.format = Format::nvfp4, .rotate = points, .rotations = 2, .signs = Signs::step};
    expect_equals_reference(uneven_matrix(9, 128 + 64), spec, seen);
    expect_equals_reference(uneven_matrix(128 + 64, 17), spec, seen);
  }
}

TEST(QuantizeRules, RangesAndCeilings) {
  const Matrix matrix = uneven_matrix(16, 256);
  Seen seen;
  for (OperandSpec spec : every_rule()) {
    if (spec.format != Format::nvfp4) continue;
    for (const auto& [range, ceiling] : {std::tuple{6.07211f, 256.0f}, {4.0f, 0.0f}, {0.0f, 448.0f}, {8.0f, 1.0f}}) {
      spec.range = range;
      spec.ceiling = ceiling;
      expect_equals_reference(matrix, spec, {true, false}, seen);
    }
  }
}

// Returns tensors of kinds that rules treat specially, or where FP32 ends.
std::vector<Matrix> extremes() {
  constexpr int64_t rows = 16;
  constexpr int64_t cols = 128;
  const Matrix normal = normal_matrix(rows, cols, 3);
  std::vector<Matrix> matrices;
  const auto add = [&](auto value_of) {
    std::vector<float> values;
    for (int64_t i = 0; i < rows * cols; ++i) values.push_back(value_of(i));
    matrices.emplace_back(rows, cols, std::move(values));
  };
  const auto normal_at = [&](int64_t i) { return normal.values[static_cast<size_t>(i)]; };
  add([](int64_t) { return 0.0f; });
  add([](int64_t i) { return i % 2 == 0 ? -0.0f : 0.0f; });
  add([&](int64_t i) { return i == 777 ? 1e30f : normal_at(i); });              // one huge element
  add([&](int64_t i) { return i == 777 ? 3000.0f : normal_at(i) * 1e-3f; });    // d below 2^-10 beside it
  add([&](int64_t i) { return i == 777 ? 2688.0f : normal_at(i) * 0x1p-7f; });  // and around it
  add([](int64_t i) { return i % 16 == 3 ? 1.0f : 0.0f; });                     // one element a block
  add([](int64_t i) { return i % 2 == 0 ? 0.75f : -0.75f; });                   // blocks of equal magnitudes
  add([](int64_t i) { return static_cast<float>(i % 13) - 6.0f; });             // ties
  for (const float factor : {1e-30f, 1e-36f, 1e-38f, 1e-40f, 1e-44f, 1e18f, 1e36f})
    add([&](int64_t i) { return normal_at(i) * factor; });
  add([](int64_t i) { return (i % 2 == 0 ? 1.0f : -1.0f) * to_float(BFloat16{0x7F7F}); });
  add([](int64_t i) { return (i % 3 == 0 ? 1.0f : 0.0f) * std::numeric_limits<float>::max(); });
  return matrices;
}

TEST(QuantizeRules, EveryRuleAtExtremes) {
  Seen seen;
  for (const Matrix& matrix : extremes()) {
    for (OperandSpec spec : every_rule()) {
      expect_equals_reference(matrix, spec, {true, false}, seen);
      spec.rotate = 16;
      if (is_supported(spec)) expect_equals_reference(matrix, spec, {true, false}, seen);
      spec.rotate = 128;
      spec.rotations = 2;
      if (is_supported(spec)) expect_equals_reference(matrix, spec, {false, false}, seen);
    }
  }
  EXPECT_GT(seen.zero_scales, 0);
  EXPECT_GT(seen.non_finite, 0);  // some rotations overflow
}

TEST(QuantizeRules, EveryRuleReportsNonFiniteSources) {
  const float bad_values[] = {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
                              std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::quiet_NaN()};
  for (const float bad : bad_values) {
    for (const size_t at : {size_t{0}, size_t{20 * 128 - 1}}) {
      std::vector<float> values = normal_matrix(128, 20, 13).values;
      values[at] = bad;
      const Matrix matrix(128, 20, values);
      for (const OperandSpec& rule : every_rule()) {
        if (rule.block == BlockShape::square) continue;
        for (const OperandSpec& spec : every_rotation_of(rule)) {
          const Operand made = quantized({at == 0 ? matrix.f32() : matrix.bf16(), true, spec, noise, signs});
          ASSERT_FALSE(source_was_finite(made.tensor)) << describe(spec);
          ASSERT_FALSE(std::isfinite(made.amax())) << describe(spec);
          for (const float value : made.decoded()) ASSERT_TRUE(std::isnan(value)) << describe(spec);
        }
      }
    }
  }
}

}  // namespace
}  // namespace nibble::test
