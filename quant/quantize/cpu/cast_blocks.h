// Functions that the cast_*.cpp files share, all element-wise over the 16 lanes of a row block.
#pragma once

#include <cstring>

#include "quant/format/tile.h"
#include "quant/quantize/cpu/cast.h"

namespace nibble::cpu {

// Finds the bits of each lane's largest magnitude over `positions` positions.
NIBBLE_INLINE void lane_amax(const float (*values)[lanes], int positions, LaneWords& amax) {
  for (uint32_t& word : amax.word) word = 0;
  for (int position = 0; position < positions; ++position) {
    for (int lane = 0; lane < lanes; ++lane) {
      const uint32_t magnitude = bits_of(values[position][lane]) & 0x7FFFFFFFu;
      amax.word[lane] = magnitude > amax.word[lane] ? magnitude : amax.word[lane];
    }
  }
}

NIBBLE_INLINE uint32_t largest_of(const LaneWords& words) {
  uint32_t largest = 0;
  for (const uint32_t word : words.word) largest = word > largest ? word : largest;
  return largest;
}

// Draws random_block() for the 16 lanes: block `index` of the operand for lane 0, `stride` blocks further for each next
// lane.
NIBBLE_INLINE void draw_noise(const NoiseStream& stream, int64_t index, int64_t stride, LaneWords (&noise)[4]) {
  for (int lane = 0; lane < lanes; ++lane) {
    const PhiloxBlock drawn = random_block(stream, static_cast<uint64_t>(index + lane * stride));
    for (int word = 0; word < 4; ++word) noise[word].word[lane] = drawn.word[word];
  }
}

NIBBLE_INLINE uint32_t noise_byte(const LaneWords (&noise)[4], int position, int lane) {
  return (noise[position >> 2].word[lane] >> (8 * (position & 3))) & 0xFFu;
}

// The codes of 16 positions, four bits each, two words a lane, in the order of a tile (quant/format/tile.h).
struct PackedCodes {
  LaneWords half[2];
};
// Packs the codes that code(position, lane) returns.
template <class Code>
NIBBLE_INLINE void pack_codes(Code code, PackedCodes& packed) {
  for (int half = 0; half < 2; ++half) {
    for (uint32_t& word : packed.half[half].word) word = 0;
    for (int i = 0; i < 8; ++i) {
      const int shift = 8 * (i & 3) + (i & 4);
      for (int lane = 0; lane < lanes; ++lane) {
        packed.half[half].word[lane] |= static_cast<uint32_t>(code(half * 8 + i, lane)) << shift;
      }
    }
  }
}

// Returns the eight codes of a word in the order of a row: the first in the low nibble.
NIBBLE_INLINE uint32_t in_row_order(uint32_t word) {
  uint32_t low = word & 0x0F0F0F0Fu;
  uint32_t high = (word >> 4) & 0x0F0F0F0Fu;
  low = (low | low >> 4) & 0x00FF00FFu;
  high = (high | high >> 4) & 0x00FF00FFu;
  return ((low | low >> 8) & 0xFFFFu) | (high | high >> 8) << 16;
}

NIBBLE_INLINE const TensorScale& scale_of_lane(const CastProblem& problem, int lane) {
  return problem.row_scales == nullptr ? problem.scale : problem.row_scales[lane];
}

NIBBLE_INLINE int64_t lanes_present(const CastProblem& problem, int64_t row) {
  return problem.rows - row < lanes ? problem.rows - row : lanes;
}

// Stores the 16 codes of each lane at `position` of the operand.
NIBBLE_INLINE void store_codes(const CastProblem& problem, int64_t row, int64_t position, const PackedCodes& packed) {
  const int64_t present = lanes_present(problem, row);
  if (problem.layout == OperandLayout::tiles) {
    uint8_t* to = problem.codes + (row * problem.inner + tile_rows * position) / 2;
    if (present < lanes) memset(to, 0, tile_code_bytes);
    for (int half = 0; half < 2; ++half) {
      memcpy(to + half * tile_code_bytes / 2, packed.half[half].word, static_cast<size_t>(4 * present));
    }
    return;
  }
  PackedCodes rows;
  for (int half = 0; half < 2; ++half) {
    for (int lane = 0; lane < lanes; ++lane) rows.half[half].word[lane] = in_row_order(packed.half[half].word[lane]);
  }
  for (int64_t lane = 0; lane < present; ++lane) {
    uint8_t* to = problem.codes + ((row + lane) * problem.inner + position) / 2;
    memcpy(to, &rows.half[0].word[lane], 4);
    memcpy(to + 4, &rows.half[1].word[lane], 4);
  }
}

NIBBLE_INLINE void store_block_scales(const CastProblem& problem, int64_t row, int64_t block, int64_t blocks,
                                      const LaneWords& scales) {
  const int64_t present = lanes_present(problem, row);
  const bool tiles = problem.layout == OperandLayout::tiles;
  uint8_t* first = problem.block_scales + (tiles ? row * blocks + block * tile_rows : row * blocks + block);
  if (tiles && present < lanes) memset(first, 0, tile_rows);
  const int64_t stride = tiles ? 1 : blocks;
  for (int64_t lane = 0; lane < present; ++lane) first[lane * stride] = static_cast<uint8_t>(scales.word[lane]);
}

}  // namespace nibble::cpu
