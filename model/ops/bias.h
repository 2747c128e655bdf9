// Adds a vector to every row of a matrix, f32 or bf16; arithmetic is FP32 and every result is rounded once.
#pragma once

#include "dist/device/operator.h"
#include "model/ops/row/range_sums.h"
#include "quant/tensor/tensor.h"

namespace nibble {

// matrix [tokens, features] += bias [features], of one dtype.
NIBBLE_OPERATOR(void add_bias(const Tensor& matrix, const Tensor& bias));

// The gradient of the bias is the sum of the rows, summed as model/ops/row/range_sums.h says.
struct BiasBackward {
  Tensor grad_output;  // [tokens, features]
  Tensor grad_bias;    // f32 [features]: the sum is added to it
  Tensor workspace;    // f32 [token_ranges, features]
};
NIBBLE_OPERATOR(void bias_backward(const BiasBackward& problem));

}  // namespace nibble
