// Checks that requantize() on the device has the bits of the CPU, which decodes the saved operand into memory first.
#include <algorithm>
#include <array>
#include <limits>

#include "cuda/quantize_fixture.h"

namespace nibble::test {
namespace {

class RequantizeOnDevice : public DeviceTest {};

OperandSpec eden(int rotate, EdenCorrection correction = EdenCorrection::post_hoc) {
  OperandSpec spec = nvfp4(BlockShape::row, Rounding::ms_eden, rotate);
  spec.correction = correction;
  if (rotate != 0) spec.signs = Signs::micro_batch;
  return spec;
}
OperandSpec with_scale(OperandSpec spec, ScaleRule scale) {
  spec.scale = scale;
  return spec;
}

// Returns a spec for every kernel for saved operands.
std::vector<OperandSpec> kinds() {
  OperandSpec outer = nvfp4();
  outer.outer = OuterScale::row_128;
  return {eden(128),
          eden(16),
          eden(128, EdenCorrection::per_128),
          nvfp4(),
          nvfp4(BlockShape::row, Rounding::nearest, 16),
          nvfp4(BlockShape::row, Rounding::stochastic),
          nvfp4(BlockShape::row, Rounding::stochastic_published, 16),
          nvfp4(BlockShape::square),
          with_scale(nvfp4(), ScaleRule::four_over_six),
          outer,
          {.format = Format::mxfp8_e4m3, .scale = ScaleRule::amax_up},
          {.format = Format::fp8_e4m3}};
}

// A saved operand with the same bits on both devices, and the operand that `spec` makes of it on each.
class Requantized {
 public:
  Requantized(const TwinMatrix& matrix, const OperandSpec& saved_spec, const QuantizeProblem& problem,
              float tensor_scale = 0)
      : saved_(problem_of(saved_spec), matrix, DType::bf16),
        values_(DType::f32, {saved_.cpu_problem.source.size(0), saved_.cpu_problem.source.cols()}) {
    EXPECT_TRUE(saved_.quantize_both());
    if (tensor_scale != 0) {
      saved_.cpu.tensor_scale.as<float>()[0] = tensor_scale;
      copy(saved_.cpu.tensor_scale, saved_.gpu.tensor_scale);
    }
    fill_bytes(values_.gpu(), poison);
    problems_ = {problem, problem};
    for (size_t i = 0; i < 2; ++i) {
      problems_[i].source = values_.on(devices[i]);
      memories_.emplace_back(problems_[i]);
      made_[i] = requantize(problems_[i], saved(i), memories_[i].storage());
    }
  }

  const QuantizedTensor& cpu() const { return made_[0]; }
  const QuantizedTensor& gpu() const { return made_[1]; }
  // Returns whether the device left the memory for the values alone.
  bool values_untouched() const {
    const HostCopy copied(values_.gpu());
    const std::span<const uint32_t> words(reinterpret_cast<const uint32_t*>(copied.as<float>().data()),
                                          copied.as<float>().size());
    return std::ranges::all_of(words, [](uint32_t word) { return word == poison * 0x01010101u; });
  }
  // Returns the observations of record_requantized(): {elements that are not finite, amax}.
  std::pair<int64_t, float> observations(size_t device) const {
    TwinTensor count(DType::i64, {1});
    TwinTensor amax(DType::f32, {1});
    const DeviceKind kind = devices[device];
    record_requantized(problems_[device], saved(device), made_[device],
                       {.non_finite = count.on(kind), .observed_amax = amax.on(kind)});
    return {HostCopy(count.on(kind)).as<int64_t>()[0], HostCopy(amax.on(kind)).as<float>()[0]};
  }

 private:
  static constexpr DeviceKind devices[] = {DeviceKind::cpu, DeviceKind::cuda};
  static constexpr uint8_t poison = 0xA5;
  const QuantizedTensor& saved(size_t device) const { return device == 0 ? saved_.cpu : saved_.gpu; }

  Twins saved_;
  TwinTensor values_;
  std::array<QuantizeProblem, 2> problems_;
  std::vector<OperandMemory> memories_;
  std::array<QuantizedTensor, 2> made_;
};

TEST_F(RequantizeOnDevice, EveryKind) {
  const TwinMatrix matrix(uneven_matrix(256, 128));
  for (const OperandSpec& spec : kinds()) {
    for (const bool transpose : {false, true}) {
      const Requantized made(matrix, nvfp4(), problem_of(spec, transpose));
      EXPECT_TRUE(same_operand(made.cpu(), made.gpu())) << describe(spec) << (transpose ? " transposed" : "");
      EXPECT_TRUE(made.values_untouched()) << describe(spec);
      EXPECT_EQ(made.observations(0), made.observations(1));
      EXPECT_EQ(made.observations(1).first, 0);
    }
  }
}

// The operands end within squares, and have more squares than one in either direction.
TEST_F(RequantizeOnDevice, RaggedShapes) {
  for (const auto& [rows, inner] : {std::pair<int64_t, int64_t>{16, 16}, {37, 48}, {144, 160}, {272, 32}, {128, 288}}) {
    const TwinMatrix matrix(uneven_matrix(rows, inner));
    for (const OperandSpec& spec : kinds()) {
      for (const bool transpose : {false, true}) {
        if (!(transpose ? fits(spec, inner, rows) : fits(spec, rows, inner))) continue;
        const Requantized made(matrix, nvfp4(), problem_of(spec, transpose));
        EXPECT_TRUE(same_operand(made.cpu(), made.gpu())) << describe(spec) << " of " << rows << " x " << inner;
      }
    }
  }
}

// The saved operands are those of recipes: square blocks, four over six, published ranges.
TEST_F(RequantizeOnDevice, SavedByOtherRules) {
  const TwinMatrix matrix(uneven_matrix(128, 64));
  for (const OperandSpec& saved : {nvfp4(BlockShape::square), with_scale(nvfp4(), ScaleRule::four_over_six),
                                   nvfp4(BlockShape::row, Rounding::stochastic)}) {
    const Requantized made(matrix, saved, problem_of(eden(128), true));
    EXPECT_TRUE(same_operand(made.cpu(), made.gpu())) << describe(saved);
  }
}

// FP32 rounds these values: subnormal ones, and such that overflow, which the amax keeps and record_requantized()
// counts.
TEST_F(RequantizeOnDevice, TinyAndHugeTensorScales) {
  const TwinMatrix matrix(uneven_matrix(128, 64));
  for (const float scale : {1e-45f, 1e-41f, 3e-38f, 7e-31f, 1.3e-5f, 1e30f, 1e35f}) {
    for (const OperandSpec& spec : {eden(128), nvfp4(BlockShape::row, Rounding::nearest, 16), nvfp4()}) {
      const Requantized made(matrix, nvfp4(), problem_of(spec, true), scale);
      EXPECT_TRUE(same_operand(made.cpu(), made.gpu())) << describe(spec) << " scale " << scale;
    }
  }
  for (const OperandSpec& spec : {eden(128), nvfp4()}) {
    const Requantized made(matrix, nvfp4(), problem_of(spec, true), 3e36f);
    EXPECT_TRUE(same_tensor_scale(made.cpu(), made.gpu()));
    const int64_t found = made.observations(0).first;
    EXPECT_TRUE(found > 1 && found < 128 * 64) << found;
    EXPECT_EQ(made.observations(1).first, found);
  }
}

TEST_F(RequantizeOnDevice, SavedOperandsThatAreNotFinite) {
  const TwinMatrix matrix(uneven_matrix(128, 64));
  for (const OperandSpec& spec : {eden(128), nvfp4(BlockShape::row, Rounding::nearest, 16), nvfp4()}) {
    const Requantized made(matrix, nvfp4(), problem_of(spec, true), std::numeric_limits<float>::quiet_NaN());
    EXPECT_TRUE(same_tensor_scale(made.cpu(), made.gpu())) << describe(spec);
    EXPECT_FALSE(source_was_finite(made.gpu()));
    EXPECT_EQ(made.observations(0).first, 128 * 64);
    EXPECT_EQ(made.observations(1).first, 128 * 64);
  }
}

// Saved operands that the kernels do not decode themselves take the way through memory.
TEST_F(RequantizeOnDevice, OtherSavedFormats) {
  const TwinMatrix matrix(uneven_matrix(128, 128));
  OperandSpec outer = nvfp4();
  outer.outer = OuterScale::row_128;
  for (const OperandSpec& saved :
       {OperandSpec{.format = Format::fp8_e4m3}, outer, nvfp4(BlockShape::row, Rounding::nearest, 32)}) {
    const Requantized made(matrix, saved, problem_of(eden(128), true));
    EXPECT_TRUE(same_operand(made.cpu(), made.gpu())) << describe(saved);
    EXPECT_FALSE(made.values_untouched()) << describe(saved);
    EXPECT_EQ(made.observations(0), made.observations(1));
  }
}

}  // namespace
}  // namespace nibble::test
