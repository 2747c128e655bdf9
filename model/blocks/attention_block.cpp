#include "model/blocks/attention_block.h"

#include <algorithm>

#include "dist/base/error.h"
#include "dist/device/thread_pool.h"
#include "model/ops/columns.h"
#include "model/ops/elementwise.h"
#include "model/ops/rope.h"

namespace nibble {
namespace {

int64_t qkv_features(const ModelConfig& config) {
  return (config.query_heads + 2 * config.kv_heads) * config.head_dim;
}

std::vector<TensorPart> qkv_parts(const ModelConfig& config) {
  return {{"q", config.query_heads * config.head_dim},
          {"k", config.kv_heads * config.head_dim},
          {"v", config.kv_heads * config.head_dim}};
}

}  // namespace

AttentionBlock::AttentionBlock(const ModelConfig& config, const Recipe& recipe, const BlockPosition& position,
                               ParameterTable& table)
    : config_(config),
      norm_(block_parameter_name(position, "norm.weight"), config, table),
      qkv_linear_(add_block_linear({.suffix = "attention.qkv.weight",
                                    .features_in = config.hidden_size,
                                    .features_out = qkv_features(config),
                                    .parts = qkv_parts(config)},
                                   position, config, recipe, table)),
      qkv_bias_(config.qkv_bias ? std::make_optional<Bias>(block_parameter_name(position, "attention.qkv.bias"),
                                                           qkv_parts(config), qkv_features(config), config.dtype, table)
                                : std::nullopt),
      head_norm_(config.qk_norm ? std::make_optional<HeadNorm>(config, position, table) : std::nullopt),
      output_linear_(add_block_linear({.suffix = "attention.output.weight",
                                       .features_in = config.query_heads * config.head_dim,
                                       .features_out = config.hidden_size,
                                       .to_residual = true},
                                      position, config, recipe, table)) {}

void AttentionBlock::allocate(const LayerArenas& arenas) {
  const int64_t tokens = arenas.tokens();
  const DType dtype = config_.dtype;
  const AttentionShape shape = shape_of(arenas.sequences, arenas.sequence_length, /*document_mask=*/false);
  Arena& saved = arenas.saved;
  Arena& workspace = arenas.workspace;
  const size_t mark = workspace.mark();

  qkv_ = allocate_tensor(saved, dtype, {tokens, shape.qkv_features()});
  attended_ = allocate_tensor(saved, dtype, {tokens, shape.output_features()});
  log_sum_exp_ = allocate_tensor(saved, DType::f32, {tokens * config_.query_heads});
  hidden_scratch_ = allocate_tensor(workspace, dtype, {tokens, config_.hidden_size});
  const bool keeps_normed = arenas.training && qkv_linear_.keeps_input();
  normed_ = keeps_normed ? allocate_tensor(saved, dtype, {tokens, config_.hidden_size}) : hidden_scratch_;
  attention_workspace_ = allocate_tensor(workspace, DType::f32, {workspace_floats(arenas)});
  if (arenas.training) {
    grad_attended_ = allocate_tensor(workspace, dtype, {tokens, shape.output_features()});
    grad_qkv_ = allocate_tensor(workspace, dtype, {tokens, shape.qkv_features()});
  }
  // The layers allocate behind the tensors above, which are alive while the layers run. No linear layer runs between
  // the norm of the heads and attention.
  norm_.allocate(arenas);
  if (qkv_bias_) qkv_bias_->allocate(arenas);
  const size_t behind = workspace.mark();
  rotated_ = head_norm_ ? allocate_tensor(workspace, dtype, {tokens, shape.qkv_features()}) : qkv_;
  if (head_norm_) head_norm_->allocate(arenas);
  workspace.release(behind);
  qkv_linear_.allocate(arenas);
  output_linear_.allocate(arenas);
  workspace.release(mark);
}

// A model with documents is trained on them, and may look at sequences without.
int64_t AttentionBlock::workspace_floats(const LayerArenas& arenas) const {
  const auto floats = [&](bool document_mask, bool training) {
    const AttentionShape shape = shape_of(arenas.sequences, arenas.sequence_length, document_mask);
    return attention_workspace_floats({.shape = shape, .dtype = config_.dtype, .training = training},
                                      arenas.workspace.device());
  };
  if (!arenas.document_mask) return floats(false, arenas.training);
  return std::max(floats(true, arenas.training), floats(false, /*training=*/false));
}

void AttentionBlock::bind(const BucketView& bucket) {
  norm_.bind(bucket);
  if (qkv_bias_) qkv_bias_->bind(bucket);
  if (head_norm_) head_norm_->bind(bucket);
  qkv_linear_.bind(bucket);
  output_linear_.bind(bucket);
}

AttentionShape AttentionBlock::shape_of(int64_t sequences, int64_t sequence_length, bool document_mask) const {
  return {.sequences = sequences,
          .sequence_length = sequence_length,
          .query_heads = config_.query_heads,
          .kv_heads = config_.kv_heads,
          .head_dim = config_.head_dim,
          .document_mask = document_mask};
}

void AttentionBlock::norm_and_rotate(const Tensor& qkv, const Tensor& rotated, const Pass& pass) const {
  if (head_norm_) head_norm_->forward(qkv, rotated);
  rotate(rotated, pass, /*inverse=*/false);
}

void AttentionBlock::rotate(const Tensor& qkv, const Pass& pass, bool inverse) const {
  rope({.qkv = qkv,
        .table = pass.rope_table,
        .sequence_length = pass.sequence_length,
        .query_heads = config_.query_heads,
        .kv_heads = config_.kv_heads,
        .head_dim = config_.head_dim,
        .inverse = inverse});
}

class AttentionBlock::Cache final : public BlockCache {
 public:
  explicit Cache(const Tensor& rows) : rows_(rows) {}
  int64_t length() const override { return length_; }
  void truncate(int64_t length) override {
    NIBBLE_CHECK(0 <= length && length <= length_, "a cache forgets tokens that it has");
    length_ = length;
  }
  // Adds rotated keys and values of the tokens in `qkv`, whose queries have `queries` columns.
  void add(const Tensor& qkv, int64_t queries) {
    const int64_t end = length_ + qkv.rows();
    NIBBLE_CHECK(end <= rows_.rows(), "a text is longer than its cache");
    copy_columns(qkv, queries, rows_.slice(length_, end));
    length_ = end;
  }
  const Tensor& rows() const { return rows_; }

 private:
  Tensor rows_;  // [longest, 2 * kv_heads * head_dim]: key heads, value heads
  int64_t length_ = 0;
};

std::unique_ptr<BlockCache> AttentionBlock::make_cache(Arena& arena, int64_t longest) const {
  return std::make_unique<Cache>(
      allocate_tensor(arena, config_.dtype, {longest, 2 * config_.kv_heads * config_.head_dim}));
}

void AttentionBlock::forward(const Tensor& input, const Tensor& output, const Pass& pass) {
  run(input, output, pass, nullptr);
}

void AttentionBlock::decode(const Tensor& input, const Tensor& output, const Pass& pass, BlockCache* cache) {
  run(input, output, pass, static_cast<Cache*>(cache));
}

void AttentionBlock::run(const Tensor& input, const Tensor& output, const Pass& pass, Cache* cache) {
  const int64_t tokens = input.rows();
  const Tensor normed = normed_.slice(0, tokens);
  const Tensor qkv = qkv_.slice(0, tokens);
  const Tensor rotated = rotated_.slice(0, tokens);
  const Tensor attended = attended_.slice(0, tokens);
  const Tensor projected = output.empty() ? Tensor() : hidden_scratch_.slice(0, tokens);

  norm_.forward(input, normed);
  qkv_linear_.forward(
      {.input = normed, .output = qkv, .context = pass.context, .keep = pass.keep, .segments = pass.segments});
  if (qkv_bias_) qkv_bias_->forward(qkv);
  norm_and_rotate(qkv, rotated, pass);
  const int64_t first = cache == nullptr ? 0 : cache->length();
  if (cache != nullptr) cache->add(rotated, config_.query_heads * config_.head_dim);
  attention_forward({.shape = shape_of(pass),
                     .qkv = rotated,
                     .output = attended,
                     .log_sum_exp = log_sum_exp_of(pass),
                     .workspace = attention_workspace_,
                     .document_starts = pass.document_starts,
                     .cache = cache == nullptr ? Tensor() : cache->rows(),
                     .first = first});
  output_linear_.forward(
      {.input = attended, .output = projected, .context = pass.context, .keep = pass.keep, .segments = pass.segments});
  if (!output.empty()) add(input, projected, output);
}

void AttentionBlock::backward(const Tensor& input, const Tensor& gradient, const Pass& pass) {
  const Tensor& grad_normed = hidden_scratch_;
  output_linear_.backward({.grad_output = gradient, .grad_input = grad_attended_, .context = pass.context});
  if (head_norm_) norm_and_rotate(qkv_, rotated_, pass);  // forward rotated qkv_ itself otherwise
  attention_backward({.shape = shape_of(pass),
                      .grad_output = grad_attended_,
                      .qkv = rotated_,
                      .output = attended_,
                      .log_sum_exp = log_sum_exp_of(pass),
                      .grad_qkv = grad_qkv_,
                      .workspace = attention_workspace_,
                      .document_starts = pass.document_starts});
  rotate(grad_qkv_, pass, /*inverse=*/true);
  if (head_norm_) head_norm_->backward(grad_qkv_, qkv_);
  if (qkv_bias_) qkv_bias_->backward(grad_qkv_);
  qkv_linear_.backward({.grad_output = grad_qkv_, .grad_input = grad_normed, .context = pass.context});
  norm_.backward(grad_normed, input, gradient);
}

Tensor AttentionBlock::log_sum_exp_of(const Pass& pass) const {
  return log_sum_exp_.slice(0, pass.sequences * config_.query_heads * pass.sequence_length)
      .reshape({pass.sequences, config_.query_heads, pass.sequence_length});
}

}  // namespace nibble
