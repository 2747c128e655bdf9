// What both devices check and decide about a QuantizeProblem before any work. Internal to quant.
#pragma once

#include "quant/format/codec.h"
#include "quant/quantize/quantize.h"

namespace nibble {

// [rows, inner] of the operand, not of the source.
struct OperandShape {
  int64_t rows = 0;
  int64_t inner = 0;
};
OperandShape operand_shape(const QuantizeProblem& problem);

// Defects of the caller: NIBBLE_CHECK. The second is for quantised formats; `storage` may have any layout.
void check_source(const QuantizeProblem& problem, const QuantizedTensor& storage);
void check_storage(const QuantizeProblem& problem, const QuantizedTensor& storage);
void check_pair(const QuantizePairProblem& problem);

// Whether the scale of the tensor comes from its own amax, so that a pass over the source goes before the cast.
bool needs_amax_pass(const QuantizeProblem& problem);

// What the largest magnitude of the tensor, or of what an outer scale covers, becomes.
float largest_for_scale(const OperandSpec& spec);

// The scale above the blocks of formats that take none from an amax: MX.
TensorScale fixed_tensor_scale(const OperandSpec& spec);

// Whether requantize() on the device reads the codes of `saved` themselves.
bool decodes_on_load(const QuantizeProblem& problem, const QuantizedTensor& saved);

// Formats that are not quantised. False: the operand is a view of the source, and done; true: the source is yet to be
// converted into its values.
bool set_plain_operand(const QuantizeProblem& problem, const QuantizedTensor& storage, QuantizedTensor& operand);

}  // namespace nibble
