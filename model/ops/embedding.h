// Token embedding: one row of the weight for each token.
#pragma once

#include "dist/device/operator.h"
#include "quant/tensor/tensor.h"

namespace nibble {

struct EmbeddingForward {
  Tensor tokens;  // i32 [n], each in [0, vocab)
  Tensor weight;  // [vocab, features], f32 or bf16
  Tensor output;  // [n, features], dtype of weight
};
NIBBLE_OPERATOR(void embedding_forward(const EmbeddingForward& problem));

// The gradients of a row's tokens are summed in token order, and the sum is added to the row.
struct EmbeddingBackward {
  Tensor tokens;           // i32 [n]
  Tensor grad_output;      // [n, features], f32 or bf16
  Tensor grad_weight;      // f32 [vocab, features]: added to
  Tensor workspace;        // i32 [2, n]; used by CPUs only
  bool continues = false;  // the sums go on from what the rows hold, in place of beginning with zero
};
NIBBLE_OPERATOR(void embedding_backward(const EmbeddingBackward& problem));

}  // namespace nibble
