// Compares with known answers of Quartet II's quantisers, all of whose decisions are far from a tie, and of four over
// six.
#include <gtest/gtest.h>

#include <string>

#include "tests/quant/operand_fixture.h"
#include "tests/quant/reference_quantize.h"

namespace nibble::test {
namespace {

// Returns x[k] = sin(1.7 k + 0.3) (1 + 0.05 k), the second block times 0.03.
std::vector<float> known_row() {
  std::vector<float> row;
  for (int k = 0; k < 32; ++k)
    row.push_back(static_cast<float>(std::sin(1.7 * k + 0.3) * (1 + 0.05 * k) * (k < 16 ? 1 : 0.03)));
  return row;
}

constexpr float eden_range = 6.0f * 16 / 17 / 0.93f;

std::string hex(const std::vector<uint8_t>& bytes) {
  std::string text;
  for (const uint8_t byte : bytes) {
    text += "0123456789abcdef"[byte >> 4];
    text += "0123456789abcdef"[byte & 15];
  }
  return text;
}

std::vector<double> scale_values(const Operand& operand) {
  std::vector<double> values;
  for (const uint8_t scale : operand.scales()) values.push_back(reference_e4m3_value(scale));
  return values;
}

struct Answer {
  float decode;  // nine digits; ours is the reciprocal of a rounded quotient, a unit or two in the last place away
  std::vector<double> scales;
  const char* codes;
};

void expect_answer(const Operand& made, const Answer& answer) {
  EXPECT_NEAR(made.decode_scale(), answer.decode, 3e-7f * answer.decode);
  EXPECT_EQ(scale_values(made), answer.scales);
  EXPECT_EQ(hex(made.codes()), answer.codes);
}

Operand made_from(const Matrix& matrix, const OperandSpec& spec, uint32_t step = 0) {
  return quantized({matrix.f32(), false, spec, {1, step, 0, 0, Purpose::grad_input_dy}, {}});
}

TEST(Published, NearestAndFourOverSix) {
  const Matrix row(1, 32, known_row());
  expect_answer(made_from(row, nvfp4()), {5.72114717e-04f, {448, 18}, "62dc55ce172fd76fe67df370fb75ee57"});
  OperandSpec spec = nvfp4();
  spec.scale = ScaleRule::four_over_six;
  expect_answer(made_from(row, spec), {1.00120076e-03f, {256, 16}, "62dc55ce172fd76fd45ce260ea64dd46"});
}

const Answer eden_answer = {9.89311491e-04f, {256, 11}, "62ec55ce172fd76fe56df370fb75ee57"};
constexpr double corrected_scales[] = {252.86333, 10.99977};

TEST(Published, NearestInTheRangeOfMsEden) {
  OperandSpec spec = nvfp4();
  spec.range = eden_range;
  spec.ceiling = 256;
  expect_answer(made_from(Matrix(1, 32, known_row()), spec), eden_answer);
}

TEST(Published, CorrectionsOfMsEden) {
  OperandSpec spec = nvfp4(BlockShape::row, Rounding::ms_eden);
  spec.correction = EdenCorrection::per_16;
  ReferenceProblem problem{known_row(), 1, 32, spec, {}};
  ReferenceResult result;
  result.codes.resize(16);
  const ReferenceScale above = reference_tensor_scale(largest_magnitude(problem.operand), eden_range * 256);
  const double corrections[] = {0.987747, 0.999979};
  for (int block = 0; block < 2; ++block) {
    const int scale = reference_e4m3(eden_answer.scales[static_cast<size_t>(block)]);
    const float factor = reference_element_factor(scale, above);
    const float correction = eden_correction(eden_encode(problem, 0, block, factor, result));
    EXPECT_NEAR(correction, corrections[block], 5.1e-7);
    // The tolerance covers two sums of 16 products in FP32.
    EXPECT_NEAR(correction * reference_e4m3_value(scale), corrected_scales[block], 0x1p-19 * corrected_scales[block]);
  }
}

// The quantiser's own scales are one of the two neighbours of the corrected ones, and these on average.
TEST(Published, MsEdenRoundsTheCorrectedScales) {
  OperandSpec spec = nvfp4(BlockShape::row, Rounding::ms_eden);
  spec.correction = EdenCorrection::per_16;
  const Matrix row(1, 32, known_row());
  constexpr uint32_t draws = 4096;
  double mean[2] = {};
  for (uint32_t step = 0; step < draws; ++step) {
    const Operand made = made_from(row, spec, step);
    ASSERT_EQ(hex(made.codes()), eden_answer.codes);
    const std::vector<double> scales = scale_values(made);
    ASSERT_TRUE(scales[0] == 240 || scales[0] == 256) << scales[0];
    ASSERT_TRUE(scales[1] == 10 || scales[1] == 11) << scales[1];
    for (size_t block = 0; block < 2; ++block) mean[block] += scales[block] / draws;
  }
  EXPECT_NEAR(mean[0], corrected_scales[0], 4 * 16 * 0.4 / 64);  // 4 standard deviations, p (1 - p) = 0.16
  EXPECT_NEAR(mean[1], corrected_scales[1], 4 * 0.0152 / 64 + 1e-5);
}

TEST(Published, RotationOf128Points) {
  std::vector<float> values;
  for (int copy = 0; copy < 4; ++copy) {
    for (const float value : known_row()) values.push_back(value);
  }
  PhiloxBlock signs{};
  for (int k = 0; k < 128; k += 3) signs.word[k / 32] |= 1u << (k % 32);
  rotate_points(values.data(), 128, signs);
  const auto expect = [&](size_t at, double published) {
    EXPECT_NEAR(values[at] / std::sqrt(128.0), published, 5.1e-7 + 1e-6 * std::fabs(published)) << at;
  };
  const double published[] = {-.087511, -.361468, 1.189155, .842453, .258868, -.269342};
  for (size_t i = 0; i < 6; ++i) expect(i, published[i]);
  expect(127, -.604029);
}

// arXiv:2512.02010: [10, 20, 30, 40] is exact with its maximum at 4, and has an MSE of 4.33 with its maximum at 6. The
// tensor's maximum of 6 * 256, or 6 * 448, makes the tensor scale 1.
TEST(Published, ExampleOfFourOverSix) {
  std::vector<float> values;
  for (int i = 0; i < 16; ++i) values.push_back(static_cast<float>(10 * (i % 4 + 1)));
  values.resize(32);
  OperandSpec spec = nvfp4();
  values[16] = 6 * 448;
  const Operand six = made_from(Matrix(1, 32, values), spec);
  EXPECT_EQ(scale_values(six)[0], 6.5);
  double squares = 0;
  for (size_t i = 0; i < 16; ++i) squares += (six.decoded()[i] - values[i]) * (six.decoded()[i] - values[i]) / 16;
  EXPECT_NEAR(squares, 4.33, 0.005);
  values[16] = 6 * 256;
  for (const ScaleRule rule :
       {ScaleRule::four_over_six, ScaleRule::four_over_six_mae, ScaleRule::four_over_six_abs_max, ScaleRule::search}) {
    spec.scale = rule;
    const Operand four = made_from(Matrix(1, 32, values), spec);
    EXPECT_EQ(scale_values(four)[0], 10);
    EXPECT_EQ(four.decoded(), values);
  }
}

}  // namespace
}  // namespace nibble::test
