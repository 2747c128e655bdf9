// Operands with their memory, the portable golden input, and normal deviates, for the tests of the quantiser.
#pragma once

#include <cmath>
#include <cstdint>
#include <memory>
#include <numbers>
#include <span>
#include <vector>

#include "dist/device/arena.h"
#include "quant/format/codec.h"
#include "quant/quantize/cpu/cast_kernels.h"
#include "quant/quantize/quantize.h"

namespace nibble::test {

struct Operand {
  std::unique_ptr<Arena> arena;
  QuantizedTensor tensor;

  std::vector<uint8_t> codes() const { return bytes_of(tensor.values); }
  std::vector<uint8_t> scales() const { return bytes_of(tensor.block_scales); }
  float decode_scale() const { return tensor.tensor_scale.as<float>()[0]; }
  float amax() const { return tensor.tensor_scale.as<float>()[1]; }
  std::vector<float> outer() const {
    const Tensor& view = tensor.outer_scales;
    return view.empty() ? std::vector<float>()
                        : std::vector<float>(view.as<float>(), view.as<float>() + view.elements());
  }
  std::vector<float> decoded() const {
    std::vector<float> values(static_cast<size_t>(tensor.rows * tensor.inner));
    dequantize(tensor, tensor_of(std::span(values), {tensor.rows, tensor.inner}));
    return values;
  }

 private:
  static std::vector<uint8_t> bytes_of(const Tensor& view) {
    if (view.empty()) return {};
    return std::vector<uint8_t>(view.as<uint8_t>(), view.as<uint8_t>() + view.bytes());
  }
};

inline Operand quantized(QuantizeProblem problem, OperandLayout layout = OperandLayout::rows,
                         InstructionSet level = instruction_set()) {
  Operand operand{std::make_unique<Arena>("test"), {}};
  const int64_t rows = problem.transpose ? problem.source.cols() : problem.source.rows();
  const int64_t inner = problem.transpose ? problem.source.rows() : problem.source.cols();
  QuantizedTensor storage;
  for (int pass = 0; pass < 2; ++pass) {
    storage = allocate_operand(*operand.arena, problem.spec, problem.source.dtype(), rows, inner, layout);
    const int64_t scratch = quantize_scratch_floats(problem.spec, rows, inner);
    if (scratch > 0) problem.scratch = allocate_tensor(*operand.arena, DType::f32, {scratch});
    if (pass == 0) operand.arena->commit();
  }
  operand.tensor =
      level == instruction_set() ? quantize(problem, storage) : cpu::quantize_with(level, problem, storage);
  return operand;
}

// A matrix in FP32 and, where it is representable, in BF16.
struct Matrix {
  int64_t rows = 0;
  int64_t cols = 0;
  std::vector<float> values;
  std::vector<BFloat16> halves;  // the elements rounded to nearest BF16 numbers

  Matrix(int64_t row_count, int64_t col_count, std::vector<float> elements)
      : rows(row_count), cols(col_count), values(std::move(elements)) {
    for (const float value : values) halves.push_back(bf16_nearest(value));
  }
  Tensor f32() const { return Tensor(const_cast<float*>(values.data()), DType::f32, {rows, cols}); }
  Tensor bf16() const { return Tensor(const_cast<BFloat16*>(halves.data()), DType::bf16, {rows, cols}); }
  Matrix transposed() const {
    std::vector<float> result(values.size());
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c)
        result[static_cast<size_t>(c * rows + r)] = values[static_cast<size_t>(r * cols + c)];
    }
    return Matrix(cols, rows, std::move(result));
  }
  // Returns the matrix of the values that BF16 keeps.
  Matrix rounded() const {
    std::vector<float> result;
    for (const BFloat16 half : halves) result.push_back(to_float(half));
    return Matrix(rows, cols, std::move(result));
  }
};

// Returns the input of the published table of digests: 16-bit sums with outlier columns, quiet rows and an all-zero
// block.
inline Matrix golden_input(int64_t rows, int64_t cols) {
  std::vector<float> values;
  for (int64_t i = 0; i < rows * cols; ++i) {
    uint64_t z = 1 + (static_cast<uint64_t>(i) + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    const int64_t sum =
        static_cast<int64_t>((z & 0xFFFF) + (z >> 16 & 0xFFFF) + (z >> 32 & 0xFFFF) + (z >> 48)) - 131070;
    float value = static_cast<float>(sum) / 32768.0f;
    const int64_t row = i / cols;
    const int64_t col = i % cols;
    if (col % 37 == 5) value *= 16;
    if (row % 53 == 7) value /= 64;
    if (row % 64 == 63 && col < 16) value = 0;
    values.push_back(value);
  }
  return Matrix(rows, cols, std::move(values)).rounded();
}

// Returns standard normal deviates, made of Philox words by Box and Muller.
inline std::vector<float> normal_deviates(size_t count, uint64_t seed) {
  const NoiseStream stream{seed, 0, 0, 0, Purpose::weight_init};
  std::vector<float> values;
  values.reserve(count + 3);
  for (uint64_t block = 0; values.size() < count; ++block) {
    const PhiloxBlock random = random_block(stream, block);
    for (int pair = 0; pair < 2; ++pair) {
      const double u = (random.word[2 * pair] + 0.5) / 4294967296.0;
      const double angle = 2 * std::numbers::pi * random.word[2 * pair + 1] / 4294967296.0;
      values.push_back(static_cast<float>(std::sqrt(-2 * std::log(u)) * std::cos(angle)));
      values.push_back(static_cast<float>(std::sqrt(-2 * std::log(u)) * std::sin(angle)));
    }
  }
  values.resize(count);
  return values;
}

// Returns a matrix of standard normal deviates, rounded to BF16.
inline Matrix normal_matrix(int64_t rows, int64_t cols, uint64_t seed) {
  return Matrix(rows, cols, normal_deviates(static_cast<size_t>(rows * cols), seed)).rounded();
}

inline OperandSpec nvfp4(BlockShape block = BlockShape::row, Rounding round = Rounding::nearest, int rotate = 0) {
  return OperandSpec{.format = Format::nvfp4, .block = block, .round = round, .rotate = rotate};
}

}  // namespace nibble::test
