// Operands of one row each, made together. In inference each token is an operand of its own, so that neither the tokens
// that share a pass nor a cache changes one (docs/numerics.md).
#pragma once

#include "dist/device/operator.h"
#include "quant/quantize/quantize.h"

namespace nibble {

// Returns whether quantize_rows() can make the operand. It cannot where rounding draws random bits, because every row
// has a stream of its own, and, on a GPU, where more than one row needs a tensor scale of its own. The rows are then
// made one after the other.
bool can_quantize_rows(const QuantizeProblem& problem);

// Makes an operand whose row r is, bit for bit, what quantize() makes of row r of the source alone; a square block then
// has one row. (If one of the values is not finite, all rows may become NaN.) `row_scales`, f32 [rows, 2], becomes the
// operand's tensor_scale, one a row, if the scale of the tensor comes from its own amax and there are several rows. The
// source is not transposed.
NIBBLE_OPERATOR(QuantizedTensor quantize_rows(const QuantizeProblem& problem, const QuantizedTensor& storage,
                                              const Tensor& row_scales));

namespace cuda {
bool scales_rows_together();
}

}  // namespace nibble
