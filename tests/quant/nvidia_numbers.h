// The figures that describe NVIDIA's roundings (arXiv:2509.25149), beside published_numbers.h: on normal deviates in
// BF16, 1024 x 1024, measured with an independent program written from Transformer Engine's formulas.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "tests/quant/published_numbers.h"

namespace nibble::test {

struct PublishedNvidia {
  std::string method;
  OperandSpec spec;
  double mse;  // x 1e3
};
inline std::vector<PublishedNvidia> published_nvidia() {
  OperandSpec four_over_six_448 = with_scale(ScaleRule::four_over_six);
  four_over_six_448.ceiling = 448;
  return {{"nearest 1x16", nvfp4(), 9.01},
          {"nearest 16x16", nvfp4(BlockShape::square), 12.4},
          {"stochastic, published", nvfp4(BlockShape::row, Rounding::stochastic_published), 18.8},
          {"stochastic, guarded", nvfp4(BlockShape::row, Rounding::stochastic), 23.6},
          {"four over six, squared error", with_scale(ScaleRule::four_over_six), 7.57},
          {"four over six, absolute error", with_scale(ScaleRule::four_over_six_mae), 7.81},
          {"four over six, squared error, ceiling 448", four_over_six_448, 7.55},
          {"rotated 16, nearest", nvfp4(BlockShape::row, Rounding::nearest, 16), 9.02}};
}

// The percentage of blocks and of elements beyond the reach of their block scale.
struct ClippedFigures {
  double blocks = 0, elements = 0;
};
inline ClippedFigures clipped_by(const OperandSpec& spec, const Matrix& source) {
  OperandSampler sampler(source, spec);
  const QuantizedTensor operand = sampler.draw(0);
  const uint8_t* scales = operand.block_scales.as<uint8_t>();
  const double decode = operand.tensor_scale.as<float>()[0];
  ClippedFigures clipped;
  const size_t blocks = source.values.size() / 16;
  for (size_t block = 0; block < blocks; ++block) {
    // The FP32 scales are rounded quotients, so the reach has their tolerance.
    const double reach = 6.0 * e4m3_to_float(scales[block]) * decode * (1 + 0x1p-22);
    int64_t elements = 0;
    for (size_t i = 16 * block; i < 16 * block + 16; ++i) elements += std::fabs(source.values[i]) > reach ? 1 : 0;
    clipped.blocks += elements > 0 ? 1 : 0;
    clipped.elements += static_cast<double>(elements);
  }
  clipped.blocks *= 100.0 / static_cast<double>(blocks);
  clipped.elements *= 100.0 / static_cast<double>(source.values.size());
  return clipped;
}

// The percentage of the elements that are not zero and become zero, in weights whose rows have log-normal sizes.
struct PublishedUnderflow {
  std::string data;
  double sigma;
  double rows, square, columns;  // blocks 1x16 along the rows, 16x16, 1x16 across the rows
  double spread;                 // standard deviation of `square` and `columns` from matrix to matrix
};
inline std::vector<PublishedUnderflow> published_underflow() {
  return {{"normal", 0, 6.8, 10.1, not_published, 0},
          {"row sizes exp(N(0,1))", 1, 6.8, 44.7, 26.6, 1.7},
          {"row sizes exp(2 N(0,1))", 2, 6.8, 73.5, 57.5, 1.5}};
}
struct UnderflowFigures {
  double rows = 0, square = 0, columns = 0;
};
inline UnderflowFigures underflow_of(double sigma, uint64_t seed = 42) {
  constexpr int64_t size = 1024;
  std::vector<float> values = normal_f32(size, size, seed).values;
  const std::vector<float> sizes = normal_deviates(size, seed + 1);
  for (size_t i = 0; i < values.size(); ++i) values[i] *= std::exp(static_cast<float>(sigma) * sizes[i / size]);
  const Matrix source = Matrix(size, size, std::move(values)).rounded();
  const auto share = [&](const OperandSpec& spec, bool transpose) {
    OperandSampler sampler(source, spec, transpose);
    const std::vector<float>& rounded = sampler.values(0);
    int64_t zeros = 0;
    for (const float value : rounded) zeros += value == 0 ? 1 : 0;
    for (const float value : source.values) zeros -= value == 0 ? 1 : 0;
    return 100.0 * static_cast<double>(zeros) / static_cast<double>(rounded.size());
  };
  return {share(nvfp4(), false), share(nvfp4(BlockShape::square), false), share(nvfp4(), true)};
}

}  // namespace nibble::test
