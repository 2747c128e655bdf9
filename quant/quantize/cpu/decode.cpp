#include "quant/quantize/cpu/decode.h"

#include <cstring>

#include "dist/base/error.h"
#include "dist/base/vectorize.h"
#include "quant/format/codec.h"
#include "quant/format/tile.h"

namespace nibble::cpu {
namespace {

NIBBLE_VECTORIZE void decode_e2m1(const uint8_t* codes, int count, float* values) {
  for (int first = 0; first < count; first += 8) {
    uint32_t word = 0;
    memcpy(&word, codes + first / 2, sizeof word);
    for (uint32_t i = 0; i < 8; ++i) values[first + static_cast<int>(i)] = e2m1_to_float(word >> (4 * i) & 15u);
  }
}
// Decodes one row of consecutive tiles: in each tile a row has four bytes of eight codes in either half.
NIBBLE_VECTORIZE void decode_tiles(const uint8_t* codes, int count, float* values) {
  for (int first = 0; first < count; first += 8) {
    const int half = first / 8 % 2;
    uint32_t word = 0;
    memcpy(&word, codes + first / 16 * tile_code_bytes + half * tile_code_bytes / 2, sizeof word);
    for (uint32_t i = 0; i < 8; ++i) {
      values[first + static_cast<int>(i)] = e2m1_to_float(word >> (8 * (i & 3u) + (i & 4u)) & 15u);
    }
  }
}
NIBBLE_VECTORIZE void decode_e4m3(const uint8_t* codes, int count, float* values) {
  for (int i = 0; i < count; ++i) values[i] = e4m3_to_float(codes[i]);
}
NIBBLE_VECTORIZE void decode_e5m2(const uint8_t* codes, int count, float* values) {
  for (int i = 0; i < count; ++i) values[i] = e5m2_to_float(codes[i]);
}
struct ScaleRun {
  const uint8_t* codes;
  int64_t stride;  // bytes from block to block
  bool powers;     // the scales are E8M0
  int block;
};
NIBBLE_VECTORIZE void scale_blocks(const ScaleRun& scales, int count, float* values) {
  const uint8_t* code = scales.codes;
  for (int first = 0; first < count; first += scales.block, code += scales.stride) {
    const float scale = scales.powers ? e8m0_to_float(*code) : e4m3_to_float(*code);
    for (int i = 0; i < scales.block; ++i) values[first + i] *= scale;
  }
}

bool in_tiles(const QuantizedTensor& operand) {
  return operand.layout == OperandLayout::tiles;
}

const uint8_t* scale_at(const QuantizedTensor& operand, int64_t row, int64_t block) {
  const int block_size = traits_of(operand.format).block;
  NIBBLE_CHECK(block_size > 0, "a format with block scales");
  const int64_t blocks = operand.inner / block_size;
  const int64_t index = in_tiles(operand) ? row / tile_rows * tile_rows * blocks + block * tile_rows + row % tile_rows
                                          : row * blocks + block;
  return operand.block_scales.as<uint8_t>() + index;
}

const uint8_t* codes_at(const QuantizedTensor& operand, int64_t row, int64_t position) {
  const int bits = traits_of(operand.format).code_bits;
  const int64_t offset = in_tiles(operand) ? row / tile_rows * tile_rows * operand.inner * bits / 8 +
                                                 position / tile_positions * tile_code_bytes + 4 * (row % tile_rows)
                                           : (row * operand.inner + position) * bits / 8;
  return operand.values.as<uint8_t>() + offset;
}

}  // namespace

void decode_chunk(const QuantizedTensor& operand, int64_t row, int64_t first, int count, float* values) {
  const FormatTraits traits = traits_of(operand.format);
  const uint8_t* codes = codes_at(operand, row, first);
  switch (traits.element) {
    case ElementCode::e2m1: (in_tiles(operand) ? decode_tiles : decode_e2m1)(codes, count, values); break;
    case ElementCode::e4m3: decode_e4m3(codes, count, values); break;
    case ElementCode::e5m2: decode_e5m2(codes, count, values); break;
    case ElementCode::none: return;
  }
  if (traits.block == 0) return;
  const ScaleRun scales{scale_at(operand, row, first / traits.block), in_tiles(operand) ? tile_rows : 1,
                        traits.block_scale == ScaleCode::e8m0, traits.block};
  scale_blocks(scales, count, values);
}

uint32_t block_scale_of(const QuantizedTensor& operand, int64_t row, int64_t block) {
  return *scale_at(operand, row, block);
}

}  // namespace nibble::cpu
