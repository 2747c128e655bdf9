// The packed tile: how NVFP4 operands lie in the CPU's memory (OperandLayout::tiles). The quantiser writes tiles, and
// the GEMM reads them for both of its operands.
//
// A tile is 16 rows by 16 positions along the inner axis, so that each of its rows is one block: 128 bytes of codes and
// 16 bytes of E4M3 scales, one a row. The code of (row r, position k), with k = 8 h + 4 p + i, i < 4, p < 2, h < 2, is
// nibble p (0: low) of byte 64 h + 4 r + i. Splitting the nibbles of 64 bytes therefore gives two vectors in the order
// that 8-bit dot products read: four consecutive positions of one row in 32 bits.
//
// Tiles of 16 rows follow each other along the inner axis: values u8 [ceil(rows/16), inner * 8], block_scales
// u8 [ceil(rows/16), inner]. Rows beyond the last are zero.
#pragma once

#include <cstdint>

namespace nibble {

constexpr int64_t tile_rows = 16;
constexpr int64_t tile_positions = 16;
constexpr int64_t tile_code_bytes = tile_rows * tile_positions / 2;

}  // namespace nibble
