// An operand of a GEMM in its storage format: a matrix [rows, inner]. `inner` is the GEMM's K, the axis that it sums
// over; all of quant uses the word in this sense.
#pragma once

#include <cstdint>

#include "quant/recipe/operand_spec.h"
#include "quant/tensor/tensor.h"

namespace nibble {

// How the codes and block scales of an operand lie in memory.
enum class OperandLayout : uint8_t {
  rows,   // the layout of files
  tiles,  // quant/format/tile.h: the CPU's GEMM reads it fastest; nvfp4 without outer scales
  // codes in rows, block scales as in quant/format/swizzle.h: the layout of GPUs, for all formats with block scales
  swizzled
};

constexpr bool fits_tiles(const OperandSpec& spec) {
  return spec.format == Format::nvfp4 && spec.outer == OuterScale::tensor;
}
// Returns the layout for both operands of a GEMM on the CPU. (On a GPU, allocate_operand() chooses `swizzled`.)
constexpr OperandLayout gemm_layout(const OperandSpec& a, const OperandSpec& b) {
  return fits_tiles(a) && fits_tiles(b) ? OperandLayout::tiles : OperandLayout::rows;
}

struct QuantizedTensor {
  Format format = Format::bf16;
  OperandLayout layout = OperandLayout::rows;
  int64_t rows = 0;
  int64_t inner = 0;

  // The codes or numbers, in rows (tiles: quant/format/tile.h). nvfp4, mxfp4: u8 [rows, inner/2], two E2M1 codes a
  // byte, the even element in the low nibble. mxfp8, fp8: u8 [rows, inner]. bf16, f32: [rows, inner]; or, when
  // `transposed`, [inner, rows] (the layout of the source, of which it is a view where the dtypes agree).
  Tensor values = {};
  bool transposed = false;

  // In quantised formats, the value of an element = code * block scale * outer scale * tensor_scale[0].
  //
  // block_scales is u8. nvfp4: E4M3 [rows, inner/16] (a 16x16 block repeats its scale in its 16 rows). MX: E8M0 [rows,
  // inner/32]. swizzled: [ceil(rows/128), bytes of a strip of swizzle cells], zero where there is no block.
  Tensor block_scales = {};
  Tensor outer_scales = {};  // f32 [rows, inner/128]; empty where one FP32 scale serves the tensor
  Tensor tensor_scale = {};  // f32 [2] = {decode scale, amax of what was rounded}

  // A rotation of 32 points and more is not normalised (the square root of 128 is no FP32 number): the values are
  // 2^(rotation_bits/2) times those of an orthogonal rotation. gemm() and dequantize() take that factor out exactly.
  int rotation_bits = 0;
};

// Returns a view of rows [begin, end) of an operand. In tiles begin must be a multiple of 16, in a swizzled operand of
// 128.
QuantizedTensor rows_of(QuantizedTensor operand, int64_t begin, int64_t end);

// Declares the memory of an operand that quantize() makes from a source of dtype `source`. The operand's `values` are
// empty where quantize() returns a view of the source, which has no layout. On a GPU, formats with block scales are
// always `swizzled`, whatever `layout` says. Throws as check_supported() and check_shape().
QuantizedTensor allocate_operand(Arena& arena, const OperandSpec& spec, DType source, int64_t rows, int64_t inner,
                                 OperandLayout layout = OperandLayout::rows);

}  // namespace nibble
