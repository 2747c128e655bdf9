// Gated activation of the MLP: output = silu(gate) * up with silu(x) = x / (1 + exp(-x)). Source: Shazeer 2020,
// arXiv:2002.05202.
//
// Activations are f32 or bf16, one dtype a call; arithmetic is FP32 and every result is rounded once.
#pragma once

#include "dist/device/operator.h"
#include "quant/tensor/tensor.h"

namespace nibble {

struct SwigluForward {
  Tensor gate_up;  // [tokens, 2 * features]: gate, then up
  Tensor output;   // [tokens, features]
};
NIBBLE_OPERATOR(void swiglu_forward(const SwigluForward& problem));

struct SwigluBackward {
  Tensor grad_output;   // [tokens, features]
  Tensor gate_up;       // [tokens, 2 * features]
  Tensor grad_gate_up;  // [tokens, 2 * features]: overwritten; not gate_up
};
NIBBLE_OPERATOR(void swiglu_backward(const SwigluBackward& problem));

}  // namespace nibble
