// Root-mean-square normalisation over the last axis: output = input * inverse_rms * weight with inverse_rms = 1 /
// sqrt(mean(input^2) + epsilon). Source: Zhang and Sennrich 2019, arXiv:1910.07467.
//
// Activations and weights are f32 or bf16, one dtype a call; arithmetic is FP32 and every result is rounded once.
#pragma once

#include "dist/device/operator.h"
#include "model/ops/row/range_sums.h"
#include "quant/tensor/tensor.h"

namespace nibble {

struct RmsNormForward {
  Tensor input;   // [tokens, features]
  Tensor weight;  // [features]
  double epsilon = 0;
  Tensor output;       // [tokens, features]; not the input
  Tensor inverse_rms;  // f32 [tokens]
};
NIBBLE_OPERATOR(void rms_norm_forward(const RmsNormForward& problem));

// The weight's gradient is summed as model/ops/row/range_sums.h says.
struct RmsNormBackward {
  Tensor grad_output;      // [tokens, features]
  Tensor input;            // [tokens, features]
  Tensor weight;           // [features]
  Tensor inverse_rms;      // f32 [tokens], of the forward pass
  Tensor grad_input;       // [tokens, features]: added to, the sum is rounded once; not grad_output
  Tensor grad_weight;      // f32 [features]: the sum is added to it
  Tensor workspace;        // f32 [token_ranges, features]
  bool continues = false;  // the sum goes on from what grad_weight holds, in place of beginning with zero
};
NIBBLE_OPERATOR(void rms_norm_backward(const RmsNormBackward& problem));

}  // namespace nibble
