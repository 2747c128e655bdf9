// Statistics of a quantiser's effect: they compare an operand with the values it was made from, after the rotation.
#pragma once

#include <cstdint>

#include "dist/device/operator.h"
#include "quant/quantize/quantize.h"

namespace nibble {

struct OperandStatistics {
  int64_t elements = 0;
  double sum_squares = 0;   // <x, x> of the source x (rotated)
  double sum_products = 0;  // <x, q>, q being the operand's values
  double quantized_squares = 0;
  double error_squares = 0;  // |x - q|^2
  int64_t nonzero = 0;       // elements of x that are not zero
  int64_t underflowed = 0;   // elements of x that are not zero and were rounded to zero
  int64_t clipped = 0;       // elements beyond the largest magnitude that their scales reach; not where a scale is zero
  int64_t zeros = 0;         // zeros of q
  int64_t blocks = 0;        // 0 for formats without block scales
  int64_t scales_zero = 0;   // blocks that are not all zero, but whose scale is
  int64_t scales_largest = 0;    // blocks whose scale is the largest the format has
  int64_t scales_subnormal = 0;  // E4M3: scales below 2^-6 that are not zero
  // Smallest scale of the blocks that are not all zero, without scales of zero; FP32 scales included.
  double smallest_scale = 0;
  double largest_scale = 0;
  double bits = 0;  // bits of storage an element, all scales but the one of the tensor included

  double relative_error() const;       // error_squares / sum_squares; 0 for a tensor of zeros
  double cosine() const;               // 1 if both are zero
  double shrinkage() const;            // 1 - <x, q>/<x, x>
  double effective_bits() const;       // -log2(relative_error) / 2; infinite where nothing was lost
  double underflow_share() const;      // share of the elements that are not zero
  double clipped_share() const;        // share of all elements
  double extreme_scale_share() const;  // share of the blocks: scales_zero + scales_largest
};

// Measures `operand`, the result of quantize(problem, ...). Sums and scales are in the units of the orthogonal
// rotation. The bits are the same for any number of threads. A source that is not finite gives NaN.
NIBBLE_OPERATOR(OperandStatistics measure(const QuantizeProblem& problem, const QuantizedTensor& operand));

}  // namespace nibble
