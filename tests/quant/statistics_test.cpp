// Compares measure() with sums taken one element at a time from the operand's bytes, for every family of operands.
#include "quant/quantize/statistics.h"

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include "dist/device/thread_pool.h"
#include "tests/quant/operand_fixture.h"

namespace nibble::test {
namespace {

const NoiseStream noise{0x1234567890ABCDEF, 77, 5, 19, Purpose::grad_weight_dy};
const SignStream signs{{0x1234567890ABCDEF, 77, 5, 19, Purpose::hadamard_signs}, 2};

// Returns the operand's matrix after its rotation, up to the rotation's normalisation.
std::vector<float> rotated(const Matrix& operand, bool from_f32, const OperandSpec& spec) {
  std::vector<float> values = operand.values;
  const bool to_bf16 = spec.rotate == hadamard_points;
  const auto round_all = [&] {
    for (float& value : values) value = to_float(bf16_nearest(value));
  };
  if (to_bf16 && from_f32) round_all();
  for (int rotation = 0; spec.rotate != 0 && rotation < spec.rotations; ++rotation) {
    for (size_t at = 0; at < values.size(); at += static_cast<size_t>(spec.rotate)) {
      const int64_t position = static_cast<int64_t>(at) % operand.cols;
      const PhiloxBlock chunk = spec.signs == Signs::fixed ? fixed_signs(spec.rotate, rotation)
                                                           : drawn_signs(signs, rotation, position / sign_chunk);
      PhiloxBlock first_here{};
      for (int i = 0; i < spec.rotate; ++i) {
        if (sign_of(chunk, position + i) != 0) first_here.word[i / 32] |= 1u << (i % 32);
      }
      rotate_points(values.data() + at, spec.rotate, first_here);
    }
  }
  if (to_bf16) round_all();
  return values;
}

double element_value(const QuantizedTensor& operand, int64_t at) {
  const auto* bytes = operand.values.as<uint8_t>();
  switch (traits_of(operand.format).element) {
    case ElementCode::e2m1: return e2m1_to_float(bytes[at / 2] >> (4 * (at % 2)) & 15u);
    case ElementCode::e4m3: return e4m3_to_float(bytes[at]);
    case ElementCode::e5m2: return e5m2_to_float(bytes[at]);
    case ElementCode::none: break;
  }
  return 0;
}

struct Reference {
  OperandStatistics sums;
  int64_t near_the_edge = 0;  // elements that a rounding of the scales may count as clipped or not
};

void reference_block_scale(const QuantizedTensor& operand, int64_t block, bool all_zero, double above,
                           OperandStatistics& sums, double& scale) {
  const uint8_t code = operand.block_scales.as<uint8_t>()[block];
  const bool power = traits_of(operand.format).block_scale == ScaleCode::e8m0;
  scale = power ? std::ldexp(1.0, code - 127) : e4m3_to_float(code);
  ++sums.blocks;
  if (scale == 0 && !all_zero) ++sums.scales_zero;
  if (code == (power ? 254 : 126)) ++sums.scales_largest;
  if (!power && scale > 0 && scale < 0.015625) ++sums.scales_subnormal;
  if (scale == 0 || all_zero) return;
  sums.smallest_scale = sums.smallest_scale == 0 ? scale * above : std::min(sums.smallest_scale, scale * above);
  sums.largest_scale = std::max(sums.largest_scale, scale * above);
}

Reference reference_statistics(const Matrix& matrix, bool from_f32, const OperandSpec& spec,
                               const QuantizedTensor& operand) {
  Reference reference;
  OperandStatistics& sums = reference.sums;
  const FormatTraits traits = traits_of(spec.format);
  const std::vector<float> source = rotated(matrix, from_f32, spec);
  const double length = std::sqrt(std::ldexp(1.0, -operand.rotation_bits));
  const int64_t elements = operand.rows * operand.inner;
  double block_scale = 1;
  for (int64_t i = 0; i < elements; ++i) {
    double above = operand.tensor_scale.as<float>()[0] * length;
    if (!operand.outer_scales.empty()) above *= operand.outer_scales.as<float>()[i / 128];
    if (traits.block != 0 && i % traits.block == 0) {
      bool all_zero = true;
      for (int64_t j = i; j < i + traits.block; ++j) all_zero = all_zero && source[static_cast<size_t>(j)] == 0;
      reference_block_scale(operand, i / traits.block, all_zero, above, sums, block_scale);
    }
    const double x = source[static_cast<size_t>(i)] * length;
    const double q = element_value(operand, i) * block_scale * above;
    const double reach = traits.largest * block_scale * above;
    ++sums.elements;
    sums.sum_squares += x * x;
    sums.sum_products += x * q;
    sums.quantized_squares += q * q;
    sums.error_squares += (x - q) * (x - q);
    sums.nonzero += x != 0;
    sums.underflowed += x != 0 && q == 0;
    sums.zeros += q == 0;
    if (block_scale == 0) continue;
    const bool on_the_edge = std::fabs(std::fabs(x) / reach - 1) < 1e-6;
    reference.near_the_edge += on_the_edge;
    sums.clipped += !on_the_edge && std::fabs(x) > reach;
  }
  if (traits.block == 0) sums.smallest_scale = sums.largest_scale = operand.tensor_scale.as<float>()[0] * length;
  return reference;
}

void expect_close(double actual, double expected, double scale, const char* what) {
  EXPECT_LE(std::fabs(actual - expected), 1e-12 * scale) << what << ": " << actual << ", expected " << expected;
}

// Sums of n products in another order differ by n * 2^-53 of the sum of their magnitudes, here below 1e-12 of it.
void expect_equals_reference(const Matrix& matrix, bool from_f32, bool transpose, const OperandSpec& spec) {
  SCOPED_TRACE(testing::Message() << describe(spec) << (transpose ? " transposed " : " ") << matrix.rows << "x"
                                  << matrix.cols << (from_f32 ? " f32" : " bf16"));
  const Matrix source = from_f32 ? matrix : matrix.rounded();
  QuantizeProblem problem{.source = from_f32 ? source.f32() : source.bf16(),
                          .transpose = transpose,
                          .spec = spec,
                          .noise = noise,
                          .signs = signs,
                          .scratch = {},
                          .amax = spec.history != 0 ? 0.5f : 0.0f};
  const Operand made = quantized(problem);
  const OperandStatistics actual = measure(problem, made.tensor);
  const auto [expected, near_the_edge] =
      reference_statistics(transpose ? source.transposed() : source, from_f32, spec, made.tensor);
  EXPECT_EQ(actual.elements, expected.elements);
  expect_close(actual.sum_squares, expected.sum_squares, expected.sum_squares, "|x|^2");
  expect_close(actual.sum_products, expected.sum_products, expected.sum_squares, "<x, q>");
  expect_close(actual.quantized_squares, expected.quantized_squares, expected.sum_squares, "|q|^2");
  expect_close(actual.error_squares, expected.error_squares, expected.error_squares, "|x - q|^2");
  EXPECT_EQ(actual.nonzero, expected.nonzero);
  EXPECT_EQ(actual.underflowed, expected.underflowed);
  EXPECT_EQ(actual.zeros, expected.zeros);
  EXPECT_GE(actual.clipped, expected.clipped);
  EXPECT_LE(actual.clipped, expected.clipped + near_the_edge);
  EXPECT_EQ(actual.blocks, expected.blocks);
  EXPECT_EQ(actual.scales_zero, expected.scales_zero);
  EXPECT_EQ(actual.scales_largest, expected.scales_largest);
  EXPECT_EQ(actual.scales_subnormal, expected.scales_subnormal);
  EXPECT_DOUBLE_EQ(actual.smallest_scale, expected.smallest_scale);
  EXPECT_DOUBLE_EQ(actual.largest_scale, expected.largest_scale);
}

std::vector<OperandSpec> every_family() {
  std::vector<OperandSpec> specs;
  for (const ScaleRule scale : {ScaleRule::amax, ScaleRule::four_over_six, ScaleRule::search}) {
    specs.push_back({.format = Format::nvfp4, .scale = scale});
    specs.push_back({.format = Format::nvfp4, .block = BlockShape::square, .scale = scale});
  }
  specs.push_back({.format = Format::nvfp4, .scale = ScaleRule::rms});
  specs.push_back({.format = Format::nvfp4, .round = Rounding::stochastic});
  specs.push_back({.format = Format::nvfp4, .round = Rounding::stochastic_published, .rotate = 16});
  specs.push_back({.format = Format::nvfp4, .rotate = 16, .rotations = 2, .signs = Signs::micro_batch});
  specs.push_back({.format = Format::nvfp4, .outer = OuterScale::row_128});
  specs.push_back({.format = Format::nvfp4,
                   .round = Rounding::stochastic,
                   .outer = OuterScale::row_128,
                   .rotate = 32,
                   .signs = Signs::step});
  for (const EdenCorrection correction : {EdenCorrection::post_hoc, EdenCorrection::per_16, EdenCorrection::per_128}) {
    for (const int rotations : {1, 2}) {
      specs.push_back({.format = Format::nvfp4,
                       .round = Rounding::ms_eden,
                       .correction = correction,
                       .rotate = 128,
                       .rotations = rotations,
                       .signs = Signs::micro_batch});
    }
  }
  for (const Format format : {Format::mxfp4, Format::mxfp8_e4m3, Format::mxfp8_e5m2}) {
    for (const ScaleRule scale : {ScaleRule::amax, ScaleRule::amax_up}) {
      specs.push_back({.format = format, .scale = scale});
    }
  }
  specs.push_back({.format = Format::mxfp4, .round = Rounding::stochastic, .rotate = 64, .signs = Signs::step});
  specs.push_back({.format = Format::mxfp4, .scale = ScaleRule::rms, .rotate = 32});
  for (const Format format : {Format::fp8_e4m3, Format::fp8_e5m2}) {
    specs.push_back({.format = format});
    specs.push_back({.format = format, .history = 4});
  }
  return specs;
}

// Returns rows of very different size: scales from zero over subnormal to the largest; a block and a chunk of zeros.
Matrix uneven_matrix(int64_t rows, int64_t cols) {
  std::vector<float> values = normal_matrix(rows, cols, 11).values;
  for (int64_t i = 0; i < rows * cols; ++i) {
    float& value = values[static_cast<size_t>(i)];
    value = std::ldexp(value * 1.000123f, static_cast<int>((i / cols * 7 + i % cols / 16 * 5) % 29) - 26);
    if (i / cols == 3 && i % cols < 32) value = 0;
    if (i / cols == 5) value = 0;
  }
  return Matrix(rows, cols, std::move(values));
}

TEST(Statistics, EqualReferenceForEveryFamily) {
  for (const OperandSpec& spec : every_family()) {
    for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{256, 384}, {128, 128}, {48, 128}, {1, 256}}) {
      for (const bool transpose : {false, true}) {
        const int64_t inner = transpose ? rows : cols;
        if (inner % inner_multiple(spec) != 0) continue;
        if (spec.block == BlockShape::square && (transpose ? cols : rows) % 16 != 0) continue;
        for (const bool from_f32 : {false, true}) {
          expect_equals_reference(uneven_matrix(rows, cols), from_f32, transpose, spec);
        }
      }
    }
  }
}

TEST(Statistics, EqualReferenceWhereRowBlocksAreCut) {
  for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{7, 48}, {33, 80}, {17, 2048 + 144}, {300, 16}}) {
    for (const bool from_f32 : {false, true}) {
      expect_equals_reference(uneven_matrix(rows, cols), from_f32, false, nvfp4());
      expect_equals_reference(uneven_matrix(cols, rows), from_f32, true, nvfp4());
    }
  }
  expect_equals_reference(uneven_matrix(19, 37), true, false, {.format = Format::fp8_e4m3});
  expect_equals_reference(uneven_matrix(19, 37), true, true, {.format = Format::fp8_e5m2});
}

// The operand of this tensor can be written down.
TEST(Statistics, CountExtremesOfAKnownTensor) {
  std::vector<float> values(64, 0.0f);
  values[0] = 6 * 448;  // block 0: scale 448, the largest; tensor scale 1
  values[1] = 0.1f;     // underflows
  values[16] = 1e-3f;   // block 1: d = 1e-3/6 < 2^-10, scale zero
  values[17] = -1e-3f;  // block 2 is all zero
  values[48] = 6.25f;   // block 3: scale 1 (1.0417 rounds to 1), clipped at 6
  values[49] = -3;
  values[50] = 0.2f;  // underflows
  const Matrix matrix(1, 64, values);
  const QuantizeProblem problem{
      .source = matrix.f32(), .transpose = false, .spec = nvfp4(), .noise = {}, .signs = {}, .scratch = {}, .amax = 0};
  const OperandStatistics found = measure(problem, quantized(problem).tensor);
  EXPECT_EQ(found.elements, 64);
  EXPECT_EQ(found.nonzero, 7);
  EXPECT_EQ(found.underflowed, 4);
  EXPECT_EQ(found.zeros, 61);
  EXPECT_EQ(found.clipped, 1);
  EXPECT_EQ(found.blocks, 4);
  EXPECT_EQ(found.scales_zero, 1);
  EXPECT_EQ(found.scales_largest, 1);
  EXPECT_EQ(found.scales_subnormal, 0);
  EXPECT_EQ(found.smallest_scale, 1.0);
  EXPECT_EQ(found.largest_scale, 448.0);
  EXPECT_EQ(found.quantized_squares, 2688.0 * 2688 + 36 + 9);
  EXPECT_EQ(found.bits, 4.5);
  EXPECT_DOUBLE_EQ(found.underflow_share(), 4.0 / 7);
  EXPECT_DOUBLE_EQ(found.clipped_share(), 1.0 / 64);
  EXPECT_DOUBLE_EQ(found.extreme_scale_share(), 0.5);
}

TEST(Statistics, PlainFormatsAndZeros) {
  const Matrix matrix = uneven_matrix(32, 48);
  for (const bool transpose : {false, true}) {
    QuantizeProblem problem{.source = matrix.f32(),
                            .transpose = transpose,
                            .spec = {.format = Format::bf16},
                            .noise = {},
                            .signs = {},
                            .scratch = {},
                            .amax = 0};
    const Operand rounded = quantized(problem);
    const OperandStatistics found = measure(problem, rounded.tensor);
    double error = 0;
    for (size_t i = 0; i < matrix.values.size(); ++i) {
      error += std::pow(double{matrix.values[i]} - to_float(matrix.halves[i]), 2);
    }
    EXPECT_GT(error, 0);
    expect_close(found.error_squares, error, error, "|x - q|^2");
    EXPECT_EQ(found.blocks, 0);
    EXPECT_EQ(found.clipped, 0);
    EXPECT_EQ(found.bits, 16);

    problem.spec.format = Format::f32;
    const OperandStatistics exact = measure(problem, quantized(problem).tensor);
    EXPECT_EQ(exact.error_squares, 0);
    EXPECT_EQ(exact.effective_bits(), std::numeric_limits<double>::infinity());
  }
  const Matrix zeros(16, 16, std::vector<float>(256, 0.0f));
  const QuantizeProblem problem{
      .source = zeros.f32(), .transpose = false, .spec = nvfp4(), .noise = {}, .signs = {}, .scratch = {}, .amax = 0};
  const OperandStatistics none = measure(problem, quantized(problem).tensor);
  EXPECT_EQ(none.relative_error(), 0);
  EXPECT_EQ(none.cosine(), 1);
  EXPECT_EQ(none.shrinkage(), 0);
  EXPECT_EQ(none.underflow_share(), 0);
  EXPECT_EQ(none.scales_zero, 0);
}

// Checks the figures of docs/numerics.md on normal deviates; a sixteenth of their spread is far above the noise of
// 2^18.
TEST(Statistics, NormalDeviates) {
  const Matrix matrix = normal_matrix(512, 512, 3);
  const auto found = [&](const OperandSpec& spec) {
    const QuantizeProblem problem{.source = matrix.bf16(),
                                  .transpose = false,
                                  .spec = spec,
                                  .noise = noise,
                                  .signs = signs,
                                  .scratch = {},
                                  .amax = 0};
    return measure(problem, quantized(problem).tensor);
  };
  const OperandStatistics nearest = found(nvfp4());
  EXPECT_NEAR(nearest.relative_error(), 9.01e-3, 1e-4);
  EXPECT_NEAR(nearest.effective_bits(), -0.5 * std::log2(9.01e-3), 0.01);
  EXPECT_NEAR(nearest.cosine(), std::sqrt(1 - 9.01e-3), 5e-4);
  const OperandStatistics published = found(nvfp4(BlockShape::row, Rounding::stochastic_published));
  EXPECT_NEAR(published.shrinkage(), 4.0e-3, 5e-4);
  const OperandStatistics stochastic = found(nvfp4(BlockShape::row, Rounding::stochastic));
  EXPECT_NEAR(stochastic.shrinkage(), 0, 5e-4);
  EXPECT_EQ(stochastic.clipped, 0);
  EXPECT_GT(published.clipped_share(), 0.01);
}

// Every member is 8 bytes long.
std::array<uint64_t, sizeof(OperandStatistics) / 8> words_of(const OperandStatistics& statistics) {
  return std::bit_cast<std::array<uint64_t, sizeof(OperandStatistics) / 8>>(statistics);
}

TEST(Statistics, DoNotDependOnThreads) {
  const Matrix matrix = uneven_matrix(384, 4096 + 256);
  for (const OperandSpec& spec : every_family()) {
    for (const bool transpose : {false, true}) {
      const QuantizeProblem problem{.source = matrix.bf16(),
                                    .transpose = transpose,
                                    .spec = spec,
                                    .noise = noise,
                                    .signs = signs,
                                    .scratch = {},
                                    .amax = 0};
      const Operand made = quantized(problem);
      set_compute_threads(1);
      const OperandStatistics alone = measure(problem, made.tensor);
      for (const int threads : {2, 3}) {
        set_compute_threads(threads);
        const OperandStatistics shared = measure(problem, made.tensor);
        EXPECT_EQ(words_of(alone), words_of(shared)) << describe(spec) << " on " << threads << " threads";
      }
    }
  }
  set_compute_threads(1);
}

}  // namespace
}  // namespace nibble::test
