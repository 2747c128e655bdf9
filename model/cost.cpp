#include "model/cost.h"

#include <algorithm>

#include "model/blocks/block_kind.h"

namespace nibble {
namespace {

struct BlockCost {
  uint64_t parameters = 0;
  uint64_t linear_parameters = 0;
};

// Counts what a block of this kind adds to a model.
BlockCost cost_of(const BlockKind& kind, const ModelConfig& config) {
  const Recipe recipe;
  ParameterTable table;
  const std::unique_ptr<Block> block =
      kind.make({.config = config, .recipe = recipe, .position = {.index = 0, .blocks = 1}, .table = table});
  BlockCost cost;
  for (const Parameter& parameter : table.parameters()) cost.parameters += parameter.count;
  for (const Linear* linear : block->linears()) cost.linear_parameters += table[linear->weight_id()].count;
  return cost;
}

}  // namespace

ModelCost model_cost(const ModelConfig& config) {
  const auto size = [](int64_t value) { return static_cast<uint64_t>(value); };
  const std::vector<const BlockKind*> blocks = kinds_of(config.pattern);
  const uint64_t head_parameters = size(config.vocab_size) * size(config.hidden_size);
  ModelCost cost;
  cost.embedding_parameters = (config.tied_head ? 1 : 2) * head_parameters;
  cost.parameters = cost.embedding_parameters + size(config.hidden_size);  // and the final norm
  double other_flops = 0;
  for (const BlockKind& kind : block_kinds()) {
    const auto count = static_cast<uint64_t>(std::count(blocks.begin(), blocks.end(), &kind));
    if (count == 0) continue;
    const BlockCost block = cost_of(kind, config);
    cost.parameters += count * block.parameters;
    cost.linear_parameters += count * block.linear_parameters;
    other_flops += static_cast<double>(count) * kind.flops_per_token(config);
  }
  cost.active_parameters = cost.parameters;  // a token passes every block whole
  cost.forward_flops_per_token = 2.0 * static_cast<double>(cost.linear_parameters + head_parameters) + other_flops;
  cost.training_flops_per_token = 3.0 * cost.forward_flops_per_token;
  return cost;
}

}  // namespace nibble
