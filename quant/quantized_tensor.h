// An operand of a GEMM in its storage format: a matrix [rows, inner], inner being the axis that the GEMM sums over.
#pragma once

#include <cstdint>

#include "quant/operand_spec.h"
#include "quant/tensor.h"

namespace nibble {

struct QuantizedTensor {
  Format format = Format::bf16;
  int64_t rows = 0;
  int64_t inner = 0;

  // nvfp4: u8 [rows, inner/2], two E2M1 codes a byte, the even element in the low nibble.
  // bf16, f32: [rows, inner]; or, when `transposed`, [inner, rows] (the layout of the source, of which it is a view
  // where the dtypes agree).
  Tensor values;
  bool transposed = false;

  // nvfp4 only. u8 [rows, inner/16]: E4M3 decode scale of each block of 16 along inner (a 16x16 tile repeats its scale
  // on 16 rows). tensor_scale: f32 [2] = {decode scale of the tensor, amax}.
  // Value of an element = e2m1(code) * e4m3(block scale) * tensor_scale[0].
  Tensor block_scales;
  Tensor tensor_scale;
};

// Declares the memory of an operand made by quantize() from a source of dtype `source`; empty where quantize() returns
// a view of the source. rows and inner are the operand's, inner a multiple of 16 for nvfp4 (rows too for 16x16 blocks).
QuantizedTensor allocate_operand(Arena& arena, const OperandSpec& spec, DType source, int64_t rows, int64_t inner);

}  // namespace nibble
