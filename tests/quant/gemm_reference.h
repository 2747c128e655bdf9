// The contract of quant/gemm/gemm.h as scalar loops, operands to try it on, and the instruction-set levels of this
// machine.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "quant/format/codec.h"
#include "quant/format/flush_subnormals.h"
#include "quant/format/tile.h"
#include "quant/gemm/cpu/gemm_kernels.h"
#include "quant/gemm/gemm.h"

namespace nibble {

// Returns the levels of this machine, best first.
inline std::vector<InstructionSet> levels() {
  std::vector<InstructionSet> all = available_instruction_sets();
  std::reverse(all.begin(), all.end());
  return all;
}

// The kind of an operand: a format; plain ones may be transposed, nvfp4 may have FP32 scales for 128 elements and lie
// in rows or in tiles.
struct Layout {
  Format format;
  bool transposed = false;
  bool outer = false;
  bool tiles = false;
};

// An operand with its memory.
struct Operand {
  Layout layout;
  int64_t rows, inner;
  int rotation_bits = 0;
  std::vector<float> f32;
  std::vector<BFloat16> bf16;
  std::vector<uint8_t> codes, scales;  // in rows
  std::vector<float> outer_scales;
  std::vector<float> tensor_scale = {1.0F, 1.0F};
  std::vector<uint8_t> tile_codes = {}, tile_scales = {};  // made by view()

  FormatTraits traits() const { return traits_of(layout.format); }
  int64_t block() const { return std::max(1, traits().block); }
  size_t index(int64_t row, int64_t k) const {
    return static_cast<size_t>(layout.transposed ? k * rows + row : row * inner + k);
  }
  uint32_t code(int64_t row, int64_t k) const {
    const auto at = static_cast<size_t>(row * inner + k);
    return traits().code_bits == 8 ? codes[at] : (codes[at / 2] >> (4 * (k % 2))) & 0xFU;
  }
  float element(int64_t row, int64_t k) const {
    switch (traits().element) {
      case ElementCode::e2m1: return e2m1_to_float(code(row, k));
      case ElementCode::e4m3: return e4m3_to_float(code(row, k));
      case ElementCode::e5m2: return e5m2_to_float(code(row, k));
      case ElementCode::none: break;
    }
    return layout.format == Format::f32 ? f32[index(row, k)] : to_float(bf16[index(row, k)]);
  }
  float block_scale(int64_t row, int64_t index_of_block) const {
    const uint8_t scale = scales[static_cast<size_t>(row * (inner / block()) + index_of_block)];
    return traits().block_scale == ScaleCode::e4m3 ? e4m3_to_float(scale) : e8m0_to_float(scale);
  }
  // Returns the element's value in the GEMM, tensor scale excluded.
  float value(int64_t row, int64_t k) const {
    float result = element(row, k);
    if (traits().block != 0) result = result * block_scale(row, k / block());
    if (layout.outer) result = result * outer_scales[static_cast<size_t>((row * inner + k) / 128)];
    return result;
  }
  std::vector<float> decoded() const {  // [rows, inner]
    std::vector<float> all;
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t k = 0; k < inner; ++k) all.push_back(value(row, k));
    }
    return all;
  }
  // Fills the tiles of quant/format/tile.h an element at a time.
  void fill_tiles() {
    const int64_t tiles_along = inner / tile_positions;
    const int64_t count = div_ceil(rows, tile_rows) * tiles_along;
    tile_codes.assign(static_cast<size_t>(count * tile_code_bytes), 0);
    tile_scales.assign(static_cast<size_t>(count * tile_rows), 0);
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t k = 0; k < inner; ++k) {
        const int64_t tile = row / tile_rows * tiles_along + k / tile_positions;
        const int64_t position = k % tile_positions;
        const int64_t offset = 64 * (position / 8) + 4 * (row % tile_rows) + position % 4;
        uint8_t& byte = tile_codes[static_cast<size_t>(tile * tile_code_bytes + offset)];
        byte = static_cast<uint8_t>(byte | (code(row, k) << (position % 8 < 4 ? 0 : 4)));
        tile_scales[static_cast<size_t>(tile * tile_rows + row % tile_rows)] =
            scales[static_cast<size_t>((row * inner + k) / tile_positions)];
      }
    }
  }
  QuantizedTensor view() {
    QuantizedTensor tensor;
    tensor.format = layout.format;
    tensor.rows = rows;
    tensor.inner = inner;
    tensor.transposed = layout.transposed;
    tensor.rotation_bits = rotation_bits;
    const int64_t first = layout.transposed ? inner : rows;
    const int64_t second = layout.transposed ? rows : inner;
    if (layout.format == Format::f32) tensor.values = Tensor(f32.data(), DType::f32, {first, second});
    if (layout.format == Format::bf16) tensor.values = Tensor(bf16.data(), DType::bf16, {first, second});
    if (!is_quantized(layout.format)) return tensor;
    if (layout.tiles) {
      fill_tiles();
      tensor.layout = OperandLayout::tiles;
      tensor.values = Tensor(tile_codes.data(), DType::u8, {div_ceil(rows, tile_rows), inner * tile_rows / 2});
      tensor.block_scales = Tensor(tile_scales.data(), DType::u8, {div_ceil(rows, tile_rows), inner});
      tensor.tensor_scale = Tensor(tensor_scale.data(), DType::f32, {2});
      return tensor;
    }
    tensor.values = Tensor(codes.data(), DType::u8, {rows, inner * traits().code_bits / 8});
    tensor.tensor_scale = Tensor(tensor_scale.data(), DType::f32, {2});
    if (traits().block != 0) tensor.block_scales = Tensor(scales.data(), DType::u8, {rows, inner / block()});
    if (layout.outer) tensor.outer_scales = Tensor(outer_scales.data(), DType::f32, {rows, inner / 128});
    return tensor;
  }
};

inline bool is_finite_code(ElementCode element, uint32_t code) {
  if (element == ElementCode::e4m3) return (code & 0x7FU) != 0x7FU;
  return element != ElementCode::e5m2 || (code & 0x7FU) < 0x7CU;
}

// Fills random finite codes and scales; those of E4M3 are all finite ones: zero, subnormal and normal.
inline void fill_codes(Operand& operand, size_t count, std::mt19937& generator) {
  std::normal_distribution<float> normal;
  const FormatTraits traits = operand.traits();
  while (operand.codes.size() < count * static_cast<size_t>(traits.code_bits) / 8) {
    const auto code = static_cast<uint8_t>(generator());
    if (is_finite_code(traits.element, code)) operand.codes.push_back(code);
  }
  for (size_t i = 0; traits.block != 0 && i < count / static_cast<size_t>(operand.block()); ++i) {
    const bool power = traits.block_scale == ScaleCode::e8m0;
    operand.scales.push_back(static_cast<uint8_t>(power ? 117 + generator() % 20 : generator() % 0x7F));
  }
  for (size_t i = 0; operand.layout.outer && i < count / 128; ++i)
    operand.outer_scales.push_back(0.1F * std::exp(normal(generator)));
  operand.tensor_scale[0] = 0.01F * std::exp(normal(generator));
}

inline Operand make_operand(Layout layout, int64_t rows, int64_t inner, uint32_t seed) {
  Operand operand{layout, rows, inner, 0, {}, {}, {}, {}, {}};
  std::mt19937 generator(seed);
  const auto count = static_cast<size_t>(rows * inner);
  std::normal_distribution<float> normal;
  if (is_quantized(layout.format)) fill_codes(operand, count, generator);
  for (size_t i = 0; i < count && layout.format == Format::f32; ++i) operand.f32.push_back(normal(generator));
  for (size_t i = 0; i < count && layout.format == Format::bf16; ++i)
    operand.bf16.push_back(bf16_nearest(normal(generator)));
  return operand;
}

// Sums blocks of doubled codes, with one rounding a block.
inline float integer_block_sum(const Operand& a, const Operand& b, int64_t i, int64_t j) {
  float c = 0.0F;
  for (int64_t block = 0; block < a.inner / 16; ++block) {
    int32_t dot = 0;
    for (int64_t k = block * 16; k < block * 16 + 16; ++k)
      dot += e2m1_doubled(a.code(i, k)) * e2m1_doubled(b.code(j, k));
    c = std::fma(static_cast<float>(dot), a.block_scale(i, block) * b.block_scale(j, block), c);
  }
  return c;
}

// Adds the product of two rows of values to c as quant/gemm/cpu/packed_matmul.h says: in pairs, the odd member first.
inline float bf16_pair_sum(const float* a, const float* b, int64_t inner, float c) {
  const FlushSubnormals flush;
  for (int64_t k = 0; k < inner; k += 2) {
    const bool both = k + 1 < inner;
    c = std::fma(both ? a[k + 1] : 0.0F, both ? b[k + 1] : 0.0F, c);
    c = std::fma(a[k], b[k], c);
  }
  return c;
}

// Returns [m, n] by the contract, in its order, for an alpha that is a normal FP32 number.
inline std::vector<float> reference_gemm(const Operand& a, const Operand& b) {
  std::vector<float> result;
  const auto integer_blocks = [](const Layout& layout) { return layout.format == Format::nvfp4 && !layout.outer; };
  const bool pair = integer_blocks(a.layout) && integer_blocks(b.layout);
  const bool bf16 = a.layout.format == Format::bf16 && b.layout.format == Format::bf16;
  const float alpha =
      std::ldexp(a.tensor_scale[0] * b.tensor_scale[0], -(a.rotation_bits + b.rotation_bits) / 2 - (pair ? 2 : 0));
  const std::vector<float> a_values = a.decoded();
  const std::vector<float> b_values = b.decoded();
  for (int64_t i = 0; i < a.rows; ++i) {
    for (int64_t j = 0; j < b.rows; ++j) {
      const float* const a_row = a_values.data() + i * a.inner;
      const float* const b_row = b_values.data() + j * b.inner;
      float c = pair ? integer_block_sum(a, b, i, j) : bf16 ? bf16_pair_sum(a_row, b_row, a.inner, 0.0F) : 0.0F;
      for (int64_t k = 0; k < a.inner && !pair && !bf16; ++k) c = std::fma(a_row[k], b_row[k], c);
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

// Returns the index of the first element with other bits, or -1. A NaN equals any NaN.
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
