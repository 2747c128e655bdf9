// Root-mean-square normalisation of queries and keys: each head of a token is normalised over its head_dim elements, as
// rms_norm.h says for a row. All query heads share one weight, and all key heads another. Source: Dehghani et al. 2023,
// arXiv:2302.05442, with the RMS norm in place of the layer norm.
#pragma once

#include "dist/device/operator.h"
#include "model/ops/row/range_sums.h"
#include "quant/tensor/tensor.h"

namespace nibble {

// Rows of tokens, f32 or bf16: query heads, then key heads, then value heads.
struct HeadShape {
  int64_t query_heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;  // even

  int64_t normed_heads() const { return query_heads + kv_heads; }
  int64_t features() const { return (query_heads + 2 * kv_heads) * head_dim; }
};

struct HeadNormForward {
  HeadShape shape;
  Tensor input;                     // [tokens, shape.features()]
  Tensor query_weight, key_weight;  // [head_dim]
  double epsilon = 0;
  Tensor output;       // [tokens, shape.features()], not the input; values are copied
  Tensor inverse_rms;  // f32 [tokens, shape.normed_heads()]
};
NIBBLE_OPERATOR(void head_norm_forward(const HeadNormForward& problem));

// The weights' gradients are summed as model/ops/row/range_sums.h says, for each head; the heads of a range follow each
// other in order.
struct HeadNormBackward {
  HeadShape shape;
  Tensor gradient;                  // [tokens, shape.features()]: of the output, replaced by that of the input
  Tensor input;                     // [tokens, shape.features()]
  Tensor query_weight, key_weight;  // [head_dim]
  Tensor inverse_rms;               // f32 [tokens, shape.normed_heads()], of the forward pass
  Tensor grad_query_weight, grad_key_weight;  // f32 [head_dim]: the sums are added to them
  Tensor workspace;                           // f32 [token_ranges, shape.normed_heads(), head_dim]
};
NIBBLE_OPERATOR(void head_norm_backward(const HeadNormBackward& problem));

// The parts of the workspace that are used: the sums of the query heads in `ranges` ranges, and those of the key heads,
// f32 [ranges * heads, head_dim].
struct HeadNormSums {
  Tensor query, key;
};
HeadNormSums head_norm_sums(const HeadNormBackward& problem, int64_t ranges);

}  // namespace nibble
