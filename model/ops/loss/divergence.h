// The Kullback-Leibler divergence of the softmax distributions of two models, from their logits.
#pragma once

#include <vector>

#include "dist/device/operator.h"
#include "quant/tensor/tensor.h"

namespace nibble {

// For each token, with a = logits of P less their maximum and b = logits of Q less theirs, three sums over the
// vocabulary: of exp(a), of exp(b), and of exp(a) (a - b).
struct DivergenceSums {
  Tensor p;     // f32 [tokens, vocab]: overwritten
  Tensor q;     // f32 [tokens, vocab]
  Tensor sums;  // f32 [tokens, 3]
};

// The sums have the same bits on every device, for any number of threads. A logit that is not finite makes them NaN or
// infinite.
NIBBLE_OPERATOR(void divergence_sums(const DivergenceSums& problem));

// Returns KL(P || Q) = sum of p ln(p / q) of each token, in nats; it is exactly 0 where the logits are equal. Waits for
// the device of the sums.
std::vector<double> divergences(const Tensor& sums);

}  // namespace nibble
