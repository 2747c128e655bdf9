// Compares the conversion instructions of quant/format/hardware_conversions.cuh with quant/format/codec.h, number by
// number, through operands whose scales leave the numbers as they are. On the simulator, which has no such
// instructions, both are the same code.
#include <cmath>
#include <limits>

#include "cuda/quantize_fixture.h"

namespace nibble::test {
namespace {

class Conversions : public DeviceTest {};

QuantizedTensor quantized_on_device(QuantizeProblem& problem, const TwinTensor& source, std::vector<uint8_t>& codes) {
  problem.source = source.gpu();
  const OperandMemory memory(problem);
  const QuantizedTensor operand = quantize(problem, memory.storage());
  const HostCopy copied(operand.values);
  codes.assign(copied.as<uint8_t>().begin(), copied.as<uint8_t>().end());
  return operand;
}

// The number of inputs of a conversion from BF16, infinities and NaN among them.
constexpr int64_t bf16_numbers = 65536;

TEST_F(Conversions, EveryBf16NumberToFp8) {
  TwinTensor source(DType::bf16, {256, bf16_numbers / 256});
  for (int64_t i = 0; i < bf16_numbers; ++i) source.cpu().as<BFloat16>()[i].bits = static_cast<uint16_t>(i);
  source.upload();
  for (const Format format : {Format::fp8_e4m3, Format::fp8_e5m2}) {
    std::vector<uint8_t> codes;
    QuantizeProblem problem = problem_of({.format = format, .history = 1}, false, traits_of(format).largest);
    quantized_on_device(problem, source, codes);
    for (int64_t i = 0; i < bf16_numbers; ++i) {
      const float value = to_float(source.cpu().as<BFloat16>()[i]);
      const uint32_t expected = format == Format::fp8_e4m3 ? e4m3_nearest(value) : e5m2_nearest(value);
      ASSERT_EQ(expected, codes[static_cast<size_t>(i)]) << name_of(format) << " of " << value;
    }
  }
}

// Returns the numbers halfway between neighbours, and the FP32 numbers on both sides of them.
template <class Decode>
std::vector<float> ties(uint32_t codes, Decode decode) {
  std::vector<float> values;
  for (uint32_t code = 0; code + 1 < codes; ++code) {
    const float tie = (decode(code) + decode(code + 1)) / 2;
    for (const float value : {std::nextafter(tie, 0.0f), tie, std::nextafter(tie, 1e30f)}) {
      values.push_back(value);
      values.push_back(-value);
    }
  }
  return values;
}

TEST_F(Conversions, TiesToFp8) {
  for (const Format format : {Format::fp8_e4m3, Format::fp8_e5m2}) {
    const bool e4m3 = format == Format::fp8_e4m3;
    const std::vector<float> values = e4m3 ? ties(0x7F, e4m3_to_float) : ties(0x7C, e5m2_to_float);
    const auto count = static_cast<int64_t>(values.size());
    TwinTensor source(DType::f32, {1, count});
    std::copy(values.begin(), values.end(), source.cpu().as<float>());
    source.upload();
    std::vector<uint8_t> codes;
    QuantizeProblem problem = problem_of({.format = format, .history = 1}, false, traits_of(format).largest);
    quantized_on_device(problem, source, codes);
    for (size_t i = 0; i < values.size(); ++i) {
      ASSERT_EQ(e4m3 ? e4m3_nearest(values[i]) : e5m2_nearest(values[i]), codes[i]) << values[i];
    }
  }
}

// MXFP4 blocks that begin with 4 have the scale 1 as long as nothing reaches 8; from 6 on elements saturate.
TEST_F(Conversions, EveryBf16NumberBelow8ToE2m1) {
  std::vector<float> values;
  for (uint32_t bits = 0; to_float(BFloat16{static_cast<uint16_t>(bits)}) < 8; ++bits) {
    values.push_back(to_float(BFloat16{static_cast<uint16_t>(bits)}));
    values.push_back(-values.back());
  }
  for (const float value : ties(8, e2m1_to_float)) values.push_back(value);
  constexpr size_t block = 32;
  const size_t blocks = values.size() / (block - 1) + 1;
  values.resize(blocks * (block - 1));
  TwinTensor source(DType::f32, {1, static_cast<int64_t>(blocks * block)});
  for (size_t i = 0; i < blocks * block; ++i) {
    source.cpu().as<float>()[i] = i % block == 0 ? 4.0f : values[i - i / block - 1];
  }
  source.upload();
  std::vector<uint8_t> codes;
  QuantizeProblem problem = problem_of({.format = Format::mxfp4});
  quantized_on_device(problem, source, codes);
  for (size_t i = 0; i < blocks * block; ++i) {
    const float value = source.cpu().as<float>()[i];
    ASSERT_EQ(e2m1_nearest(value), codes[i / 2] >> (4 * (i % 2)) & 15u) << value;
  }
}

// A rotation of 16 points rounds an FP32 source to BF16 first. One number among zeros is then a quarter of itself
// everywhere, and the outer scale of its 128 elements tells which number it became.
TEST_F(Conversions, TiesToBf16) {
  constexpr int64_t reach = 128;
  constexpr int64_t numbers = 768;
  TwinTensor source(DType::f32, {numbers / 6, 6 * reach});
  float* const values = source.cpu().as<float>();
  for (int64_t i = 0; i < numbers; ++i) {
    const uint32_t tie = 0x3F808000u + static_cast<uint32_t>(i / 3) * 0x10000u;
    values[i * reach + i % 2] = float_of_bits(tie + static_cast<uint32_t>(i % 3) - 1);
  }
  source.upload();
  OperandSpec spec = nvfp4(BlockShape::row, Rounding::nearest, hadamard_points);
  spec.outer = OuterScale::row_128;
  QuantizeProblem problem = problem_of(spec);
  problem.source = source.gpu();
  const OperandMemory memory(problem);
  const HostCopy outer(quantize(problem, memory.storage()).outer_scales);
  for (int64_t i = 0; i < numbers; ++i) {
    const float value = values[i * reach + i % 2];
    const float rounded = to_float(bf16_nearest(value)) / 4;
    ASSERT_EQ(tensor_scale_of(rounded, largest_of_tensor(spec)).decode, outer.as<float>()[static_cast<size_t>(i)])
        << std::hex << bits_of(value);
  }
}

}  // namespace
}  // namespace nibble::test
