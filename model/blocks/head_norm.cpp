#include "model/blocks/head_norm.h"

namespace nibble {
namespace {

uint32_t add_weight(std::string_view suffix, const ModelConfig& config, const BlockPosition& position,
                    ParameterTable& table) {
  return table.add({.name = block_parameter_name(position, suffix),
                    .shape = {config.head_dim},
                    .use = TensorUse::vector,
                    .initialization = Initialization::ones,
                    .dtype = config.dtype});
}

}  // namespace

HeadNorm::HeadNorm(const ModelConfig& config, const BlockPosition& position, ParameterTable& table)
    : query_weight_id_(add_weight("attention.q_norm.weight", config, position, table)),
      key_weight_id_(add_weight("attention.k_norm.weight", config, position, table)),
      shape_{.query_heads = config.query_heads, .kv_heads = config.kv_heads, .head_dim = config.head_dim},
      epsilon_(config.norm_epsilon) {}

void HeadNorm::allocate(const LayerArenas& arenas) {
  inverse_rms_ = allocate_tensor(arenas.workspace, DType::f32, {arenas.tokens(), shape_.normed_heads()});
  if (!arenas.training) return;
  sums_ = allocate_tensor(arenas.workspace, DType::f32, {token_ranges, shape_.normed_heads(), shape_.head_dim});
}

void HeadNorm::bind(const BucketView& bucket) {
  query_ = bucket[query_weight_id_];
  key_ = bucket[key_weight_id_];
}

void HeadNorm::forward(const Tensor& qkv, const Tensor& output) const {
  head_norm_forward({.shape = shape_,
                     .input = qkv,
                     .query_weight = query_.values,
                     .key_weight = key_.values,
                     .epsilon = epsilon_,
                     .output = output,
                     .inverse_rms = inverse_rms_.slice(0, qkv.rows())});
}

void HeadNorm::backward(const Tensor& gradient, const Tensor& qkv) const {
  head_norm_backward({.shape = shape_,
                      .gradient = gradient,
                      .input = qkv,
                      .query_weight = query_.values,
                      .key_weight = key_.values,
                      .inverse_rms = inverse_rms_.slice(0, qkv.rows()),
                      .grad_query_weight = query_.gradient,
                      .grad_key_weight = key_.gradient,
                      .workspace = sums_});
}

}  // namespace nibble
