// The contract of quant/gemm.h as scalar loops, operands to try it on, and the instruction-set levels of this machine.
#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "quant/codec.h"
#include "quant/gemm.h"
#include "quant/gemm_kernels.h"

namespace nibble {

inline std::vector<const cpu::GemmKernels*> levels() {
  std::vector<const cpu::GemmKernels*> all;
  for (const cpu::GemmKernels* const* next = cpu::available_gemm_kernels(); *next != nullptr; ++next)
    all.push_back(*next);
  return all;
}

// An operand with its memory. `values` are what the product sees, tensor scale excluded.
struct Operand {
  Format format;
  int64_t rows, inner;
  bool transposed;
  std::vector<float> f32;
  std::vector<BFloat16> bf16;
  std::vector<uint8_t> codes, scales;
  std::vector<float> tensor_scale = {1.0F, 1.0F};

  size_t index(int64_t row, int64_t k) const {
    return static_cast<size_t>(transposed ? k * rows + row : row * inner + k);
  }
  uint32_t code(int64_t row, int64_t k) const {
    return (codes[static_cast<size_t>(row * inner + k) / 2] >> (4 * (k % 2))) & 0xFU;
  }
  float block_scale(int64_t row, int64_t block) const {
    return e4m3_to_float(scales[static_cast<size_t>(row * (inner / 16) + block)]);
  }
  float value(int64_t row, int64_t k) const {
    if (format == Format::f32) return f32[index(row, k)];
    if (format == Format::bf16) return to_float(bf16[index(row, k)]);
    return e2m1_to_float(code(row, k)) * block_scale(row, k / 16);
  }
  QuantizedTensor view() {
    QuantizedTensor tensor;
    tensor.format = format;
    tensor.rows = rows;
    tensor.inner = inner;
    tensor.transposed = transposed;
    const int64_t first = transposed ? inner : rows;
    const int64_t second = transposed ? rows : inner;
    if (format == Format::f32) tensor.values = Tensor(f32.data(), DType::f32, {first, second});
    if (format == Format::bf16) tensor.values = Tensor(bf16.data(), DType::bf16, {first, second});
    if (format == Format::nvfp4) {
      tensor.values = Tensor(codes.data(), DType::u8, {rows, inner / 2});
      tensor.block_scales = Tensor(scales.data(), DType::u8, {rows, inner / 16});
      tensor.tensor_scale = Tensor(tensor_scale.data(), DType::f32, {2});
    }
    return tensor;
  }
};

inline Operand make_operand(Format format, int64_t rows, int64_t inner, bool transposed, uint32_t seed) {
  Operand operand{format, rows, inner, transposed, {}, {}, {}, {}};
  std::mt19937 generator(seed);
  const auto count = static_cast<size_t>(rows * inner);
  std::normal_distribution<float> normal;
  if (format == Format::nvfp4) {
    for (size_t i = 0; i < count / 2; ++i) operand.codes.push_back(static_cast<uint8_t>(generator()));
    // All finite scales: zero, subnormal and normal.
    for (size_t i = 0; i < count / 16; ++i) operand.scales.push_back(static_cast<uint8_t>(generator() % 0x7F));
    operand.tensor_scale[0] = 0.01F * std::exp(normal(generator));
  }
  for (size_t i = 0; i < count && format == Format::f32; ++i) operand.f32.push_back(normal(generator));
  for (size_t i = 0; i < count && format == Format::bf16; ++i) operand.bf16.push_back(bf16_nearest(normal(generator)));
  return operand;
}

// The contract, in order. [m, n]
inline std::vector<float> reference_product(const Operand& a, const Operand& b) {
  std::vector<float> result;
  const bool pair = a.format == Format::nvfp4 && b.format == Format::nvfp4;
  const float g_a = a.format == Format::nvfp4 ? a.tensor_scale[0] : 1.0F;
  const float g_b = b.format == Format::nvfp4 ? b.tensor_scale[0] : 1.0F;
  const float alpha = pair ? (g_a * g_b) / 4.0F : g_a * g_b;
  for (int64_t i = 0; i < a.rows; ++i) {
    for (int64_t j = 0; j < b.rows; ++j) {
      float c = 0.0F;
      for (int64_t k = 0; k < a.inner && !pair; ++k) c = std::fma(a.value(i, k), b.value(j, k), c);
      for (int64_t block = 0; block < a.inner / 16 && pair; ++block) {
        int32_t dot = 0;
        for (int64_t k = block * 16; k < block * 16 + 16; ++k)
          dot += e2m1_doubled(a.code(i, k)) * e2m1_doubled(b.code(j, k));
        c = std::fma(static_cast<float>(dot), a.block_scale(i, block) * b.block_scale(j, block), c);
      }
      result.push_back(c * alpha);
    }
  }
  return result;
}

inline uint32_t raw_bits(float value) {
  return bits_of(value);
}
inline uint32_t raw_bits(BFloat16 value) {
  return value.bits;
}

// Index of the first element with other bits, or -1. A NaN equals any NaN.
template <class T>
int64_t first_difference(const std::vector<T>& got, const std::vector<T>& expected) {
  if (got.size() != expected.size()) return 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const bool both_nan = is_nan(to_float(got[i])) && is_nan(to_float(expected[i]));
    if (raw_bits(got[i]) != raw_bits(expected[i]) && !both_nan) return static_cast<int64_t>(i);
  }
  return -1;
}

}  // namespace nibble
