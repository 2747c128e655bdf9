#include "quant/decode.h"

#include <cstring>

#include "dist/vectorize.h"
#include "quant/codec.h"

namespace nibble::cpu {
namespace {

NIBBLE_VECTORIZE void decode_e2m1(const uint8_t* codes, int count, float* values) {
  for (int first = 0; first < count; first += 8) {
    uint32_t word = 0;
    memcpy(&word, codes + first / 2, sizeof word);
    for (uint32_t i = 0; i < 8; ++i) values[first + static_cast<int>(i)] = e2m1_to_float(word >> (4 * i) & 15u);
  }
}
NIBBLE_VECTORIZE void decode_e4m3(const uint8_t* codes, int count, float* values) {
  for (int i = 0; i < count; ++i) values[i] = e4m3_to_float(codes[i]);
}
NIBBLE_VECTORIZE void decode_e5m2(const uint8_t* codes, int count, float* values) {
  for (int i = 0; i < count; ++i) values[i] = e5m2_to_float(codes[i]);
}
NIBBLE_VECTORIZE void scale_blocks(const uint8_t* scales, bool powers, int block, int count, float* values) {
  for (int first = 0; first < count; first += block, ++scales) {
    const float scale = powers ? e8m0_to_float(*scales) : e4m3_to_float(*scales);
    for (int i = 0; i < block; ++i) values[first + i] *= scale;
  }
}

}  // namespace

void decode_chunk(const QuantizedTensor& operand, int64_t row, int64_t first, int count, float* values) {
  const FormatTraits traits = traits_of(operand.format);
  const uint8_t* codes = operand.values.as<uint8_t>() + (row * operand.inner + first) * traits.code_bits / 8;
  switch (traits.element) {
    case ElementCode::e2m1: decode_e2m1(codes, count, values); break;
    case ElementCode::e4m3: decode_e4m3(codes, count, values); break;
    case ElementCode::e5m2: decode_e5m2(codes, count, values); break;
    case ElementCode::none: return;
  }
  if (traits.block == 0) return;
  const uint8_t* scales = operand.block_scales.as<uint8_t>() + (row * operand.inner + first) / traits.block;
  scale_blocks(scales, traits.block_scale == ScaleCode::e8m0, traits.block, count, values);
}

}  // namespace nibble::cpu
