// The checks and decisions about a QuantizeProblem that both devices share and make before any work. Internal to quant.
#pragma once

#include "quant/format/codec.h"
#include "quant/quantize/quantize.h"

namespace nibble {

// The shape [rows, inner] of the operand, not of the source.
struct OperandShape {
  int64_t rows = 0;
  int64_t inner = 0;
};
OperandShape operand_shape(const QuantizeProblem& problem);

// These check the arguments; a violation is a defect of the caller (NIBBLE_CHECK). check_storage() is for quantised
// formats; `storage` may have any layout.
void check_source(const QuantizeProblem& problem, const QuantizedTensor& storage);
void check_storage(const QuantizeProblem& problem, const QuantizedTensor& storage);
void check_pair(const QuantizePairProblem& problem);

// Returns whether the scale of the tensor comes from its own amax, so that a pass over the source must precede the
// cast.
bool needs_amax_pass(const QuantizeProblem& problem);

// Returns the magnitude that the largest magnitude of the tensor, or of an outer scale's elements, becomes.
float largest_for_scale(const OperandSpec& spec);

// Returns the scale above the blocks of formats that take none from an amax: MX.
TensorScale fixed_tensor_scale(const OperandSpec& spec);

// Returns whether requantize() on a GPU reads the codes of `saved` themselves.
bool decodes_on_load(const QuantizeProblem& problem, const QuantizedTensor& saved);

// Sets the operand of a format that is not quantised. Returns false if the operand is a view of the source, and done;
// true if the source is yet to be converted into the operand's values.
bool set_plain_operand(const QuantizeProblem& problem, const QuantizedTensor& storage, QuantizedTensor& operand);

}  // namespace nibble
