// Checks that quantize() on the device has the bits of the CPU, for every kind of operand.
#include <algorithm>
#include <limits>
#include <random>
#include <set>

#include "cuda/quantize_fixture.h"

namespace nibble::test {
namespace {

class QuantizeOnDevice : public DeviceTest {};

constexpr DType dtypes[] = {DType::f32, DType::bf16};

TEST_F(QuantizeOnDevice, EveryRule) {
  const TwinMatrix matrix(uneven_matrix(48, 256));
  for (const OperandSpec& spec : every_rule()) {
    for (const DType dtype : dtypes) EXPECT_TRUE(same_on_both(problem_of(spec), matrix, dtype));
  }
}

TEST_F(QuantizeOnDevice, EveryRuleTransposed) {
  const TwinMatrix matrix(uneven_matrix(256, 48));
  for (const OperandSpec& spec : every_rule()) EXPECT_TRUE(same_on_both(problem_of(spec, true), matrix, DType::bf16));
}

TEST_F(QuantizeOnDevice, EveryRotationOfEveryRule) {
  const TwinMatrix matrix(uneven_matrix(16, 256));
  const TwinMatrix transposed(uneven_matrix(256, 16));
  int turn = 0;
  for (const OperandSpec& rule : every_rule()) {
    for (const OperandSpec& spec : every_rotation_of(rule)) {
      if (spec.rotate == 0) continue;
      const bool transpose = turn % 3 == 0;
      const DType dtype = dtypes[turn++ % 2];
      EXPECT_TRUE(same_on_both(problem_of(spec, transpose), transpose ? transposed : matrix, dtype));
    }
  }
}

// Rows and inner axes end within the squares of the kernels and the cells of the swizzled scales, or are not a multiple
// of 16 bytes of the source; and there are more squares than one in either direction.
TEST_F(QuantizeOnDevice, RaggedShapes) {
  OperandSpec eden = nvfp4(BlockShape::row, Rounding::ms_eden, 16);
  OperandSpec eden_first = nvfp4(BlockShape::row, Rounding::ms_eden);
  eden_first.correction = EdenCorrection::per_16;
  const OperandSpec mx{.format = Format::mxfp8_e4m3, .scale = ScaleRule::amax_up};
  for (const auto& [rows, inner] : {std::pair<int64_t, int64_t>{1, 16}, {37, 48}, {129, 160}, {272, 32}, {16, 288}}) {
    for (const bool transpose : {false, true}) {
      const TwinMatrix matrix(transpose ? uneven_matrix(inner, rows) : uneven_matrix(rows, inner));
      for (const OperandSpec& spec : {nvfp4(), nvfp4(BlockShape::square), nvfp4(BlockShape::row, Rounding::stochastic),
                                      eden, eden_first, mx, OperandSpec{.format = Format::fp8_e4m3}}) {
        if (!fits(spec, rows, inner)) continue;
        for (const DType dtype : dtypes) EXPECT_TRUE(same_on_both(problem_of(spec, transpose), matrix, dtype));
      }
    }
  }
}

// Returns square blocks whose two candidate scales, 256 and 384, have the same error but for the order in which it is
// added up: elements with equal errors under both, as many with 0 and 1/4 as with 1/4 and 0, and tiny ones.
Matrix tied_squares(int64_t side, unsigned seed) {
  std::mt19937 generator(seed);
  std::vector<float> values(static_cast<size_t>(side * side));
  for (int64_t block = 0; block < side * side / 256; ++block) {
    std::vector<float> elements = {6.0f};
    for (int i = 0; i < 20; ++i) elements.insert(elements.end(), {0.5f, 0.75f, 2.125f, 0.625f, 4.25f});
    while (elements.size() < 256) {
      elements.push_back(std::ldexp(static_cast<float>(1 + generator() % 7), -12 - static_cast<int>(generator() % 14)));
    }
    std::shuffle(elements.begin(), elements.end(), generator);
    for (int64_t i = 0; i < 256; ++i) {
      const int64_t row = block / (side / 16) * 16 + i / 16;
      const int64_t col = block % (side / 16) * 16 + i % 16;
      values[static_cast<size_t>(row * side + col)] = elements[static_cast<size_t>(i)];
    }
  }
  return Matrix(side, side, std::move(values));
}

TEST_F(QuantizeOnDevice, ErrorsOfSquaresAreAddedInOneOrder) {
  for (unsigned seed = 1; seed <= 4; ++seed) {
    const TwinMatrix matrix(tied_squares(128, seed));
    for (const ScaleRule scale : {ScaleRule::four_over_six, ScaleRule::four_over_six_mae}) {
      OperandSpec spec = nvfp4(BlockShape::square);
      spec.scale = scale;
      Twins twins(problem_of(spec), matrix, DType::f32);
      EXPECT_TRUE(twins.quantize_both()) << name_of_case(problem_of(spec), DType::f32);
      const auto* scales = twins.cpu.block_scales.as<uint8_t>();
      const std::set<uint8_t> chosen(scales, scales + twins.cpu.block_scales.elements());
      EXPECT_EQ(chosen, (std::set<uint8_t>{0x78, 0x7C})) << "256 and 384";
    }
  }
}

// FP8 without rotation takes any inner axis; delayed scaling takes the amax it is given.
TEST_F(QuantizeOnDevice, Fp8OfAnyShape) {
  for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{1, 1}, {3, 7}, {130, 133}, {40, 24}}) {
    const TwinMatrix matrix(uneven_matrix(rows, cols));
    for (const Format format : {Format::fp8_e4m3, Format::fp8_e5m2}) {
      for (const bool transpose : {false, true}) {
        for (const float amax : {0.0f, 0.75f, 3000.0f}) {
          const QuantizeProblem problem = problem_of({.format = format, .history = amax != 0 ? 4 : 0}, transpose, amax);
          for (const DType dtype : dtypes) EXPECT_TRUE(same_on_both(problem, matrix, dtype));
        }
      }
    }
  }
}

TEST_F(QuantizeOnDevice, ZerosAndSmallestNumbers) {
  std::vector<float> values(64 * 64, 0.0f);
  const TwinMatrix zeros(Matrix(64, 64, values));
  values[77] = -std::numeric_limits<float>::denorm_min();
  values[2000] = 1e-41f;
  const TwinMatrix smallest(Matrix(64, 64, values));
  for (const OperandSpec& spec : every_rule()) {
    if (!fits(spec, 64, 64)) continue;
    EXPECT_TRUE(same_on_both(problem_of(spec), zeros, DType::bf16));
    EXPECT_TRUE(same_on_both(problem_of(spec), smallest, DType::f32));
  }
}

// A NaN or an infinity anywhere shows in the tensor scale; codes and block scales then have no meaning.
TEST_F(QuantizeOnDevice, NonFiniteSources) {
  for (const float value : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    for (const int64_t place : {int64_t{0}, int64_t{129 * 128 - 1}}) {
      Matrix matrix = uneven_matrix(129, 128);
      matrix.values[static_cast<size_t>(place)] = value;
      const TwinMatrix twin(Matrix(129, 128, matrix.values));
      OperandSpec outer = nvfp4();
      outer.outer = OuterScale::row_128;
      for (const OperandSpec& spec :
           {nvfp4(), nvfp4(BlockShape::row, Rounding::stochastic, 16), nvfp4(BlockShape::row, Rounding::ms_eden, 128),
            outer, OperandSpec{.format = Format::mxfp4}, OperandSpec{.format = Format::fp8_e4m3}}) {
        for (const float amax : {0.0f, 1.0f}) {
          if (amax != 0 && traits_of(spec.format).block != 0) continue;
          for (const DType dtype : dtypes) {
            const QuantizeProblem problem = problem_of(spec, false, amax);
            Twins twins(problem, twin, dtype);
            twins.quantize_both();
            EXPECT_TRUE(same_tensor_scale(twins.cpu, twins.gpu)) << name_of_case(problem, dtype);
            EXPECT_TRUE(is_nan(HostCopy(twins.gpu.tensor_scale).as<float>()[0])) << name_of_case(problem, dtype);
          }
        }
      }
    }
  }
}

// The source is finite, but its rotation overflows.
TEST_F(QuantizeOnDevice, OverflowInTheRotation) {
  const TwinMatrix large(Matrix(16, 128, std::vector<float>(16 * 128, 3e38f)));
  for (const int points : {32, 128}) {
    const QuantizeProblem problem = problem_of(nvfp4(BlockShape::row, Rounding::nearest, points));
    Twins twins(problem, large, DType::f32);
    twins.quantize_both();
    EXPECT_TRUE(same_tensor_scale(twins.cpu, twins.gpu));
    EXPECT_TRUE(is_nan(HostCopy(twins.gpu.tensor_scale).as<float>()[0]));
  }
}

TEST_F(QuantizeOnDevice, PlainFormats) {
  for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{5, 7}, {33, 64}, {64, 64}}) {
    Matrix matrix = uneven_matrix(rows, cols);
    matrix.values[3] = std::numeric_limits<float>::infinity();
    matrix.values[4] = float_of_bits(0xFF812345u);  // a NaN keeps its payload
    matrix.values[5] = 3.4e38f;                     // becomes infinite
    const TwinMatrix twin(Matrix(rows, cols, matrix.values));
    for (const Format format : {Format::f32, Format::bf16}) {
      for (const DType dtype : dtypes) {
        for (const bool transpose : {false, true}) {
          const QuantizeProblem problem = problem_of({.format = format}, transpose);
          Twins twins(problem, twin, dtype);
          EXPECT_TRUE(twins.quantize_both()) << name_of_case(problem, dtype);
          const bool view = (format == Format::f32) == (dtype == DType::f32);
          EXPECT_EQ(twins.gpu.values.data() == twins.gpu_problem.source.data(), view);
        }
      }
    }
  }
}

// The memory of a larger operand serves a smaller one, whose scales' padding is written anew.
TEST_F(QuantizeOnDevice, WritesAgainWhatItWrote) {
  const TwinMatrix matrix(uneven_matrix(40, 80));
  for (const OperandSpec& spec : {nvfp4(), nvfp4(BlockShape::row, Rounding::ms_eden, 16)}) {
    Twins twins(problem_of(spec), matrix, DType::bf16);
    EXPECT_TRUE(twins.quantize_both());
    EXPECT_TRUE(twins.quantize_both()) << "a second time";
    fill_bytes(twins.gpu_memory.storage().block_scales, 0x7F);
    fill_bytes(twins.gpu_memory.storage().tensor_scale, 0x7E);
    EXPECT_TRUE(twins.quantize_both()) << "over other bytes";
  }
}

TEST_F(QuantizeOnDevice, RefusesScalesInRows) {
  const TwinMatrix matrix(uneven_matrix(16, 32));
  QuantizeProblem problem = problem_of(nvfp4());
  problem.source = matrix.on(DeviceKind::cuda, DType::bf16);
  const OperandMemory memory(problem);
  QuantizedTensor rows = memory.storage();
  rows.layout = OperandLayout::rows;
  rows.block_scales = rows.block_scales.reshape({rows.block_scales.elements()}).slice(0, 32);
  EXPECT_THROW(quantize(problem, rows), Error);
}

}  // namespace
}  // namespace nibble::test
