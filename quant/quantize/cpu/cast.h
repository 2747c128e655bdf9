// Rounds row blocks (row_block.h) into codes and scales: one source file for each family of formats and rules
// (cast_nvfp4.cpp, cast_eden.cpp, cast_scaled.cpp). Internal to quant; quantize.cpp calls them, docs/numerics.md
// section 3 states what they compute.
#pragma once

#include <cstdint>

#include "quant/format/philox.h"
#include "quant/quantize/cpu/row_block.h"
#include "quant/recipe/operand_spec.h"
#include "quant/tensor/quantized_tensor.h"

namespace nibble::cpu {

struct CastProblem {
  OperandSpec spec;
  NoiseStream noise;
  TensorScale scale{1, 1};
  // [16]: the scales of the rows of a row block, if each row has one of its own (quant/quantize/quantize_rows.h;
  // MS-EDEN never); null: `scale` is that of all.
  const TensorScale* row_scales = nullptr;
  int64_t rows = 0;
  int64_t inner = 0;
  OperandLayout layout = OperandLayout::rows;
  uint8_t* codes = nullptr;         // [rows, inner] or, for codes of four bits, [rows, inner/2], or in tiles
  uint8_t* block_scales = nullptr;  // [rows, inner/block], or in tiles
  float* outer_scales = nullptr;    // [rows, inner/128]
  // Block scales of post hoc MS-EDEN before the tensor scale is known, [ceil(rows/16), inner/16 blocks, 16 lanes].
  float* corrected = nullptr;
};

// The bits of a row block's largest magnitude and, for post hoc MS-EDEN, of its largest corrected scale.
struct RowBlockMaxima {
  uint32_t amax = 0;
  uint32_t corrected = 0;
};

// Calls the function of the operand's format and rule.
RowBlockMaxima cast_row_block(const CastProblem& problem, const RowBlockBounds& bounds, const RowBlock& row_block);
RowBlockMaxima cast_nvfp4(const CastProblem& problem, const RowBlockBounds& bounds, const RowBlock& row_block);
RowBlockMaxima cast_ms_eden(const CastProblem& problem, const RowBlockBounds& bounds, const RowBlock& row_block);
RowBlockMaxima cast_mx(const CastProblem& problem, const RowBlockBounds& bounds, const RowBlock& row_block);
RowBlockMaxima cast_fp8(const CastProblem& problem, const RowBlockBounds& bounds, const RowBlock& row_block);

// Post hoc MS-EDEN: rounds the corrected scales to E4M3 when the tensor scale is known. Indices [begin, end) count
// groups of 16 scales, one for each lane, in the order of `corrected`.
void round_corrected_scales(const CastProblem& problem, int64_t begin, int64_t end);

}  // namespace nibble::cpu
