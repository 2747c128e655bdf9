// The RMS norms of an attention block's queries and keys, before the rotary embedding, as in Qwen3.
#pragma once

#include "model/blocks/block.h"
#include "model/ops/norm/head_norm.h"

namespace nibble {

class HeadNorm {
 public:
  // Adds attention.q_norm.weight and attention.k_norm.weight, [head_dim] each, to the table.
  HeadNorm(const ModelConfig& config, const BlockPosition& position, ParameterTable& table);

  // Takes workspace that must live from forward() to backward().
  void allocate(const LayerArenas& arenas);
  void bind(const BucketView& bucket);
  // Writes rows [tokens, qkv features] with normalised queries and keys; values are copied.
  void forward(const Tensor& qkv, const Tensor& output) const;
  // Replaces the gradient of the output of the last forward() by that of `qkv`, its input, and adds the gradients of
  // the weights.
  void backward(const Tensor& gradient, const Tensor& qkv) const;

 private:
  uint32_t query_weight_id_, key_weight_id_;
  HeadShape shape_;
  double epsilon_;
  WeightView query_, key_;  // [head_dim]
  Tensor inverse_rms_;      // f32 [tokens, normed heads]
  Tensor sums_;             // f32 [token_ranges, normed heads, head_dim]
};

}  // namespace nibble
