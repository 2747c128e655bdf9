// An operand of a GEMM in its storage format: a matrix [rows, inner], inner being the axis that the GEMM sums over.
#pragma once

#include <cstdint>

#include "quant/recipe/operand_spec.h"
#include "quant/tensor/tensor.h"

namespace nibble {

// How the codes and block scales of an operand lie in memory.
enum class OperandLayout : uint8_t {
  rows,     // what files use
  tiles,    // quant/format/tile.h: what the CPU's GEMM reads fastest; nvfp4 without outer scales
  swizzled  // codes in rows, block scales as in quant/format/swizzle.h: what GPUs read; all formats with block scales
            // there
};

constexpr bool fits_tiles(const OperandSpec& spec) {
  return spec.format == Format::nvfp4 && spec.outer == OuterScale::tensor;
}
// The layout for both operands of a product on the CPU. (On a GPU, allocate_operand() makes it `swizzled`.)
constexpr OperandLayout product_layout(const OperandSpec& a, const OperandSpec& b) {
  return fits_tiles(a) && fits_tiles(b) ? OperandLayout::tiles : OperandLayout::rows;
}

struct QuantizedTensor {
  Format format = Format::bf16;
  OperandLayout layout = OperandLayout::rows;
  int64_t rows = 0;
  int64_t inner = 0;

  // In rows (tiles: quant/format/tile.h). nvfp4, mxfp4: u8 [rows, inner/2], two E2M1 codes a byte, the even element in
  // the low nibble. mxfp8, fp8: u8 [rows, inner]. bf16, f32: [rows, inner]; or, when `transposed`, [inner, rows] (the
  // layout of the source, of which it is a view where the dtypes agree).
  Tensor values = {};
  bool transposed = false;

  // Value of an element = code * block scale * outer scale * tensor_scale[0], in quantised formats.
  Tensor block_scales =
      {};  // u8: nvfp4 E4M3 [rows, inner/16] (a square tile repeats its scale); MX E8M0 [rows, inner/32];
           // swizzled: [ceil(rows/128), bytes of a strip of scale tiles], zero where there is no block
  Tensor outer_scales = {};  // f32 [rows, inner/128]; empty where one FP32 scale serves the tensor
  Tensor tensor_scale = {};  // f32 [2] = {decode scale, amax of what was rounded}

  // A rotation of 32 points and more is not normalised (the square root of 128 is no FP32 number): the values are
  // 2^(rotation_bits/2) times those of an orthogonal rotation. gemm() takes that out exactly, dequantize() too.
  int rotation_bits = 0;
};

// Rows [begin, end) of an operand, or of its memory; in tiles begin is a multiple of 16, swizzled of 128.
QuantizedTensor rows_of(QuantizedTensor operand, int64_t begin, int64_t end);

// Declares the memory of an operand made by quantize() from a source of dtype `source`; empty where quantize() returns
// a view of the source, which has no layout. On a GPU, formats with block scales are always `swizzled`, whatever
// `layout` says. Throws as check_shape().
QuantizedTensor allocate_operand(Arena& arena, const OperandSpec& spec, DType source, int64_t rows, int64_t inner,
                                 OperandLayout layout = OperandLayout::rows);

}  // namespace nibble
