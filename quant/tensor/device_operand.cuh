// An operand of a GEMM as kernels read it: its values are decoded as quant/gemm/gemm.h says, up to the tensor scale.
#pragma once

#include "dist/base/error.h"
#include "dist/device/launch.cuh"
#include "quant/format/codec.h"
#include "quant/format/output_scale.h"
#include "quant/format/swizzle.h"
#include "quant/tensor/quantized_tensor.h"

namespace nibble::cuda {

constexpr int64_t outer_block = 128;  // elements that share an outer scale

struct DeviceOperand {
  const void* values;  // [rows, inner], or [inner, rows] when transposed
  const uint8_t* block_scales;
  const float* outer_scales;  // [rows, inner/128]; null: none
  const float* tensor_scale;  // null: 1
  int64_t rows, inner;
  int64_t blocks;  // block scales of a row
  Format format;
  bool transposed;
};

// Checks dtypes and shapes; on a GPU block scales must be swizzled.
inline DeviceOperand device_operand(const QuantizedTensor& tensor) {
  const FormatTraits traits = traits_of(tensor.format);
  DeviceOperand operand{};
  operand.values = tensor.values.data();
  operand.rows = tensor.rows;
  operand.inner = tensor.inner;
  operand.format = tensor.format;
  operand.transposed = tensor.transposed;
  const auto has_shape = [](const Tensor& part, DType dtype, int64_t rows, int64_t cols) {
    return part.device() == DeviceKind::cuda && part.dtype() == dtype && part.rank() == 2 && part.size(0) == rows &&
           part.size(1) == cols;
  };
  if (!is_quantized(tensor.format)) {
    const DType dtype = tensor.format == Format::bf16 ? DType::bf16 : DType::f32;
    NIBBLE_CHECK(tensor.transposed ? has_shape(tensor.values, dtype, tensor.inner, tensor.rows)
                                   : has_shape(tensor.values, dtype, tensor.rows, tensor.inner),
                 "operand [rows, inner], or [inner, rows] when transposed");
    return operand;
  }
  NIBBLE_CHECK(!tensor.transposed, "quantised operands lie along the inner axis");
  NIBBLE_CHECK(has_shape(tensor.values, DType::u8, tensor.rows, tensor.inner * traits.code_bits / 8),
               "codes [rows, bytes of a row]");
  NIBBLE_CHECK(tensor.tensor_scale.dtype() == DType::f32 && tensor.tensor_scale.elements() >= 1, "tensor scale");
  operand.tensor_scale = tensor.tensor_scale.as<float>();
  if (traits.block != 0) {
    NIBBLE_CHECK(tensor.layout == OperandLayout::swizzled && tensor.inner % traits.block == 0,
                 "operand in whole blocks with swizzled scales");
    operand.blocks = tensor.inner / traits.block;
    NIBBLE_CHECK(has_shape(tensor.block_scales, DType::u8, div_ceil(tensor.rows, swizzle_rows),
                           swizzled_scale_bytes(swizzle_rows, operand.blocks)),
                 "block scales [strips of 128 rows, bytes of a strip]");
    operand.block_scales = tensor.block_scales.as<uint8_t>();
  }
  if (!tensor.outer_scales.empty()) {
    NIBBLE_CHECK(tensor.format == Format::nvfp4 && tensor.inner % outer_block == 0 &&
                     has_shape(tensor.outer_scales, DType::f32, tensor.rows, tensor.inner / outer_block),
                 "outer scales [rows, inner/128] of nvfp4");
    operand.outer_scales = tensor.outer_scales.as<float>();
  }
  return operand;
}

// Returns the product of the tensor scales times 2^power, in the CPU's arithmetic.
__device__ __forceinline__ double output_scale(const DeviceOperand& a, const DeviceOperand& b, int power) {
  const float g_a = a.tensor_scale != nullptr ? *a.tensor_scale : 1.0F;
  const float g_b = b.tensor_scale != nullptr ? *b.tensor_scale : 1.0F;
  return nibble::output_scale(g_a, g_b, power);
}

// The scales of the block of element (row, k), as FP32 numbers; 1 where the operand has none.
struct BlockScale {
  float block, outer;
};
__device__ __forceinline__ BlockScale scale_at(const DeviceOperand& operand, int64_t row, int64_t k) {
  const FormatTraits traits = traits_of(operand.format);
  BlockScale scale{1.0F, 1.0F};
  if (traits.block != 0) {
    const uint32_t code = operand.block_scales[swizzled_scale_offset(row, k / traits.block, operand.blocks)];
    scale.block = traits.block_scale == ScaleCode::e8m0 ? e8m0_to_float(code) : e4m3_to_float(code);
  }
  if (operand.outer_scales != nullptr) {
    scale.outer = operand.outer_scales[row * (operand.inner / outer_block) + k / outer_block];
  }
  return scale;
}

__device__ __forceinline__ float decode_code(ElementCode element, uint32_t code) {
  if (element == ElementCode::e2m1) return e2m1_to_float(code);
  return element == ElementCode::e4m3 ? e4m3_to_float(code) : e5m2_to_float(code);
}

// Returns one element of an operand of any format.
__device__ __forceinline__ float value_at(const DeviceOperand& operand, int64_t row, int64_t k) {
  const int64_t index = operand.transposed ? k * operand.rows + row : row * operand.inner + k;
  if (operand.format == Format::f32) return static_cast<const float*>(operand.values)[index];
  if (operand.format == Format::bf16) return to_float(static_cast<const BFloat16*>(operand.values)[index]);
  const auto* codes = static_cast<const uint8_t*>(operand.values);
  const FormatTraits traits = traits_of(operand.format);
  const uint32_t code = traits.code_bits == 4 ? codes[index / 2] >> (4 * (index & 1)) & 15U : codes[index];
  const BlockScale scale = scale_at(operand, row, k);
  return decode_code(traits.element, code) * scale.block * scale.outer;
}

// Decodes `count` (4 or 8) elements of a quantised operand from position k on. k and the inner extent are multiples of
// count.
template <int count>
__device__ __forceinline__ void decode_codes(const DeviceOperand& operand, int64_t row, int64_t k,
                                             float (&out)[count]) {
  const FormatTraits traits = traits_of(operand.format);
  const auto* from = static_cast<const uint8_t*>(operand.values) + (row * operand.inner + k) * traits.code_bits / 8;
  uint32_t words[2] = {};
  if (traits.code_bits == 4) {
    if constexpr (count == 4) words[0] = *reinterpret_cast<const uint16_t*>(from);
    if constexpr (count == 8) words[0] = *reinterpret_cast<const uint32_t*>(from);
  } else {
    words[0] = reinterpret_cast<const uint32_t*>(from)[0];
    if constexpr (count == 8) words[1] = reinterpret_cast<const uint32_t*>(from)[1];
  }
  const BlockScale scale = scale_at(operand, row, k);
#pragma unroll
  for (int i = 0; i < count; ++i) {
    const uint32_t code = traits.code_bits == 4 ? words[0] >> (4 * i) & 15U : words[i / 4] >> (8 * (i % 4)) & 255U;
    out[i] = decode_code(traits.element, code) * scale.block * scale.outer;
  }
}

}  // namespace nibble::cuda
