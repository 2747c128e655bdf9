// The two passes of the NVFP4 quantiser over rectangles of blocks; quantize.cpp cuts an operand into them.
//
// A tile is 16 operand rows (lanes) by one block of 16 elements (positions). Amax, rotation and scales of a block are
// then element-wise over the lanes, whichever axis of the source the blocks run along.
#pragma once

#include <cstdint>

#include "quant/codec.h"
#include "quant/operand_spec.h"
#include "quant/philox.h"
#include "quant/quantized_tensor.h"
#include "quant/tensor.h"

namespace nibble::cpu {

constexpr int tile_size = 16;

struct TileSource {
  const void* data = nullptr;
  DType dtype = DType::bf16;
  bool transpose = false;  // element k of operand row r is data[k * stride + r] instead of data[r * stride + k]
  int64_t stride = 0;
  int64_t rows = 0;  // of the operand
  bool rotate = false;
};

// Tiles [first_tile, last_tile) of operand rows by blocks [first_block, last_block) along the inner axis.
struct TileRange {
  int64_t first_tile = 0, last_tile = 0;
  int64_t first_block = 0, last_block = 0;
};

struct CastProblem {
  TileSource source;
  OperandSpec spec;
  NoiseStream noise;
  TensorScale scale;
  uint8_t* codes = nullptr;         // [rows, blocks * 8]
  uint8_t* block_scales = nullptr;  // [rows, blocks]
  int64_t blocks = 0;               // a row
};
void cast_tiles(const CastProblem& problem, const TileRange& range);

// Bits of the largest magnitude: as integers the bits of magnitudes are ordered, infinity and NaN last.
uint32_t amax_of_tiles(const TileSource& source, const TileRange& range);  // after the rotation
uint32_t amax_of_span(const float* values, size_t count);
uint32_t amax_of_span(const BFloat16* values, size_t count);

int64_t non_finite_in_span(const float* values, size_t count);
int64_t non_finite_in_span(const BFloat16* values, size_t count);

}  // namespace nibble::cpu
