// Attention block: input + W_o attention(rope(qkv)) with qkv = W_qkv norm(input); qkv may have a bias, and its heads of
// queries and keys may be normalised before they are rotated. For backward it saves the reciprocal root mean squares,
// the rotated queries, keys and values, the attention output, the log-sum-exp, and what the two linear layers keep; it
// saves the norm's output only if the first linear layer reads it in backward. If heads are normalised, it saves
// queries and keys as they are before, and backward normalises and rotates them again.
#pragma once

#include <optional>

#include "model/blocks/block.h"
#include "model/blocks/head_norm.h"
#include "model/layers/bias.h"
#include "model/ops/attention/attention.h"

namespace nibble {

class AttentionBlock final : public Block {
 public:
  AttentionBlock(const ModelConfig& config, const Recipe& recipe, const BlockPosition& position, ParameterTable& table);

  void allocate(const LayerArenas& arenas) override;
  void bind(const BucketView& bucket) override;
  void forward(const Tensor& input, const Tensor& output, const Pass& pass) override;
  void backward(const Tensor& input, const Tensor& gradient, const Pass& pass) override;
  // The cache holds the rotated keys and the values: 2 * kv_heads * head_dim numbers a token.
  std::unique_ptr<BlockCache> make_cache(Arena& arena, int64_t longest) const override;
  void decode(const Tensor& input, const Tensor& output, const Pass& pass, BlockCache* cache) override;
  std::vector<Linear*> linears() override { return {&qkv_linear_, &output_linear_}; }

 private:
  class Cache;
  void run(const Tensor& input, const Tensor& output, const Pass& pass, Cache* cache);
  AttentionShape shape_of(int64_t sequences, int64_t sequence_length, bool document_mask) const;
  AttentionShape shape_of(const Pass& pass) const {
    return shape_of(pass.sequences, pass.sequence_length, !pass.document_starts.empty());
  }
  int64_t workspace_floats(const LayerArenas& arenas) const;
  Tensor log_sum_exp_of(const Pass& pass) const;
  // Writes normalised and rotated queries and keys to `rotated`, which is `qkv` if heads are not normalised.
  void norm_and_rotate(const Tensor& qkv, const Tensor& rotated, const Pass& pass) const;
  void rotate(const Tensor& qkv, const Pass& pass, bool inverse) const;

  ModelConfig config_;
  Norm norm_;
  Linear qkv_linear_;
  std::optional<Bias> qkv_bias_;
  std::optional<HeadNorm> head_norm_;
  Linear output_linear_;

  // Saved from forward to backward.
  Tensor qkv_;          // [tokens, qkv features]
  Tensor attended_;     // [tokens, query_heads * head_dim]
  Tensor log_sum_exp_;  // f32 [tokens * query_heads]
  Tensor normed_;       // [tokens, hidden]; shares hidden_scratch_ unless backward reads it
  // Workspace.
  Tensor hidden_scratch_;  // [tokens, hidden]: first the projection, later the gradient of normed
  Tensor grad_attended_;   // [tokens, query_heads * head_dim]
  Tensor grad_qkv_;        // [tokens, qkv features]
  Tensor rotated_;         // [tokens, qkv features]; shares qkv_ unless heads are normalised
  Tensor attention_workspace_;
};

}  // namespace nibble
