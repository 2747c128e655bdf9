// Softmax cross-entropy of next-token predictions, in nats, and its gradient.
#pragma once

#include "dist/device/operator.h"
#include "quant/tensor/tensor.h"

namespace nibble {

struct CrossEntropy {
  Tensor logits;       // f32 [tokens, vocab]: overwritten
  Tensor targets;      // i32 [tokens], each in [0, vocab)
  Tensor grad_logits;  // f32 or bf16 [tokens, vocab]: scale * (softmax - one_hot), may be logits itself; empty: no
                       // gradient
  float scale = 1;     // of the gradient; the losses are not scaled
  Tensor losses;       // f32 [tokens]
};

// The losses have the same bits with and without gradient, and for any number of threads. A logit that is NaN or
// +infinity makes its token's loss NaN.
NIBBLE_OPERATOR(void cross_entropy(const CrossEntropy& problem));

// Returns the sum of the losses, f32 [tokens], in token order, in FP64. Waits for the device of the losses.
double sum_of_losses(const Tensor& losses);

}  // namespace nibble
