// The order in which cuBLASLt wants the block scales of an operand: cells of 128 rows by 4 scales, 512 bytes each, rows
// and scales padded with zeros to whole cells. Source: cuBLAS documentation, "1D block scaling factors layout".
#pragma once

#include <cstdint>

#include "quant/format/host_device.h"

namespace nibble {

constexpr int64_t swizzle_rows = 128;  // rows of a cell

// Returns the bytes of the padded array for `rows` x `blocks` scales.
NIBBLE_HOST_DEVICE int64_t swizzled_scale_bytes(int64_t rows, int64_t blocks) {
  return (rows + 127) / 128 * 128 * ((blocks + 3) / 4 * 4);
}

// Returns the byte offset of the scale of block `block` in row `row`, where a row has `blocks` scales.
NIBBLE_HOST_DEVICE int64_t swizzled_scale_offset(int64_t row, int64_t block, int64_t blocks) {
  const int64_t cells_across = (blocks + 3) / 4;
  const int64_t cell = row / 128 * cells_across + block / 4;
  return cell * 512 + row % 32 * 16 + row % 128 / 32 * 4 + block % 4;
}

}  // namespace nibble
