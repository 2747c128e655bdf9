#include "model/cost.h"

namespace nibble {

ModelCost model_cost(const ModelConfig& config) {
  const auto size = [](int64_t value) { return static_cast<uint64_t>(value); };
  const uint64_t hidden = size(config.hidden_size);
  const uint64_t attention_features = size(config.query_heads * config.head_dim);
  const uint64_t qkv_features = size((config.query_heads + 2 * config.kv_heads) * config.head_dim);
  const uint64_t attention_parameters = hidden * (qkv_features + attention_features);
  const uint64_t mlp_parameters = 3 * hidden * size(config.intermediate_size);

  ModelCost cost;
  uint64_t attention_blocks = 0;
  for (const BlockKind kind : block_kinds(config.pattern)) {
    switch (kind) {
      case BlockKind::attention:
        ++attention_blocks;
        cost.linear_parameters += attention_parameters;
        break;
      case BlockKind::mlp: cost.linear_parameters += mlp_parameters; break;
    }
  }
  const uint64_t head_parameters = size(config.vocab_size) * hidden;
  cost.embedding_parameters = (config.tied_head ? 1 : 2) * head_parameters;
  const uint64_t norm_parameters = (size(config.blocks()) + 1) * hidden;
  cost.parameters = cost.embedding_parameters + cost.linear_parameters + norm_parameters;

  // A token sees half the context on average, so scores and values each cost 2 * context / 2 FLOP a feature.
  const double attention_flops = 2.0 * static_cast<double>(size(config.sequence_length) * attention_features);
  cost.forward_flops_per_token = 2.0 * static_cast<double>(cost.linear_parameters + head_parameters) +
                                 static_cast<double>(attention_blocks) * attention_flops;
  cost.training_flops_per_token = 3.0 * cost.forward_flops_per_token;
  return cost;
}

}  // namespace nibble
