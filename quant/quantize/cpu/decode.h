// Decodes codes to numbers, a piece of a row at a time. Internal to quant.
#pragma once

#include <cstdint>

#include "quant/tensor/quantized_tensor.h"

namespace nibble::cpu {

// Sets values[i] = code * block scale of elements [first, first + count) of a row; the FP32 scales above are left out.
// first is a multiple of 32, and so is count where the format has blocks. The result is exact, except that MX values
// may leave FP32's range.
void decode_chunk(const QuantizedTensor& operand, int64_t row, int64_t first, int count, float* values);

// Returns the code of the scale of a row's block.
uint32_t block_scale_of(const QuantizedTensor& operand, int64_t row, int64_t block);

}  // namespace nibble::cpu
