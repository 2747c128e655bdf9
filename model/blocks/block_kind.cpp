#include "model/blocks/block_kind.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "dist/base/utf8.h"
#include "model/blocks/attention_block.h"
#include "model/blocks/mlp_block.h"

namespace nibble {
namespace {

void check_heads(const ModelConfig& config) {
  check_size("model.query_heads", config.query_heads);
  check_size("model.kv_heads", config.kv_heads);
  check_size("model.head_dim", config.head_dim);
  if (config.query_heads % config.kv_heads != 0) {
    throw ModelConfigError(
        "model.kv_heads",
        fmt::format("model.kv_heads {} does not divide model.query_heads {}", config.kv_heads, config.query_heads),
        "give every key-value head the same number of query heads");
  }
  if (config.head_dim % 2 != 0) {
    throw ModelConfigError(
        "model.head_dim",
        fmt::format("model.head_dim is {}, but rotary positions turn pairs of elements", config.head_dim),
        "use an even model.head_dim");
  }
  check_size("model.query_heads", "model.query_heads * head_dim", config.query_heads * config.head_dim);
  check_multiple("model.query_heads", "model.query_heads * model.head_dim", config.query_heads * config.head_dim);
  check_multiple("model.query_heads", "(model.query_heads + 2 * model.kv_heads) * model.head_dim",
                 (config.query_heads + 2 * config.kv_heads) * config.head_dim);
  check_matrix("the projection of queries, keys and values",
               (config.query_heads + 2 * config.kv_heads) * config.head_dim, config.hidden_size);
}

// A token sees half the context on average, so scores and values each cost 2 * context / 2 FLOP a feature.
double attention_flops(const ModelConfig& config) {
  return 2.0 * static_cast<double>(config.sequence_length * config.query_heads * config.head_dim);
}

void check_mlp(const ModelConfig& config) {
  check_size("model.intermediate_size", config.intermediate_size);
  check_multiple("model.intermediate_size", config.intermediate_size);
  check_matrix("the first matrix of an MLP", 2 * config.intermediate_size, config.hidden_size);
}

double no_flops(const ModelConfig& /*config*/) {
  return 0;
}

template <class Kind>
std::unique_ptr<Block> make(const BlockContext& context) {
  return std::make_unique<Kind>(context.config, context.recipe, context.position, context.table);
}

constexpr auto kinds = std::to_array<BlockKind>({
    {'*', "attention", "causal attention with rotary positions", &check_heads, &make<AttentionBlock>, &attention_flops,
     /*has_positions=*/true},
    {'-', "mlp", "an MLP with SwiGLU", &check_mlp, &make<MlpBlock>, &no_flops},
});

std::string characters_of_kinds() {
  std::string text;
  for (const BlockKind& kind : kinds) {
    const std::string_view before = text.empty() ? "" : &kind == &kinds.back() ? " and " : ", ";
    text += fmt::format("{}'{}' for {}", before, kind.character, kind.doc);
  }
  return text;
}

void check_positive(const std::string& key, double value) {
  if (!std::isfinite(value) || value <= 0) {
    throw ModelConfigError(key, fmt::format("{} is {}, not a positive number", key, value), fmt::format("set {}", key));
  }
}

void check_rope_scaling(const ModelConfig& config) {
  check_positive("model.rope_low_frequency_factor", config.rope_low_frequency_factor);
  check_positive("model.rope_high_frequency_factor", config.rope_high_frequency_factor);
  check_size("model.rope_original_length", config.rope_original_length);
  const double factor = config.rope_scaling_factor;
  if (!std::isfinite(factor) || factor < 1) {
    throw ModelConfigError("model.rope_scaling_factor", fmt::format("model.rope_scaling_factor is {}, below 1", factor),
                           "use 1 for no scaling");
  }
  if (config.rope_low_frequency_factor >= config.rope_high_frequency_factor) {
    throw ModelConfigError(
        "model.rope_low_frequency_factor",
        fmt::format("model.rope_low_frequency_factor {} is not below model.rope_high_frequency_factor {}",
                    config.rope_low_frequency_factor, config.rope_high_frequency_factor),
        "Llama 3 has 1 and 4");
  }
}

// Returns the whole UTF-8 character that begins at `index`.
std::string_view character_at(std::string_view text, size_t index) {
  text.remove_prefix(index);
  return text.substr(0, code_point_boundary(text, 1));
}

}  // namespace

std::span<const BlockKind> block_kinds() {
  return kinds;
}

std::vector<const BlockKind*> kinds_of(const std::string& pattern) {
  if (pattern.empty()) {
    throw ModelConfigError("model.pattern", "model.pattern is empty", "give one character a block, such as \"*-*-\"");
  }
  std::vector<const BlockKind*> result;
  result.reserve(pattern.size());
  for (size_t i = 0; i < pattern.size(); ++i) {
    const auto* const kind = std::find_if(
        kinds.begin(), kinds.end(), [&](const BlockKind& candidate) { return candidate.character == pattern[i]; });
    if (kind == kinds.end()) {
      throw ModelConfigError("model.pattern",
                             fmt::format("model.pattern has '{}' at position {}, which names no kind of block",
                                         character_at(pattern, i), i),
                             fmt::format("use {}", characters_of_kinds()));
    }
    result.push_back(kind);
  }
  return result;
}

bool has_block(const ModelConfig& config, std::string_view kind_name) {
  const std::vector<const BlockKind*> used = kinds_of(config.pattern);
  return std::any_of(used.begin(), used.end(), [&](const BlockKind* kind) { return kind->name == kind_name; });
}

void validate(const ModelConfig& config) {
  const std::vector<const BlockKind*> used = kinds_of(config.pattern);
  check_size("model.vocab_size", config.vocab_size);
  check_size("model.hidden_size", config.hidden_size);
  check_size("model.sequence_length", config.sequence_length);
  check_multiple("model.vocab_size", config.vocab_size);
  check_multiple("model.hidden_size", config.hidden_size);
  check_matrix("the embedding", config.vocab_size, config.hidden_size);
  for (const BlockKind& kind : kinds) {
    if (std::find(used.begin(), used.end(), &kind) != used.end()) kind.check(config);
  }
  check_positive("model.rope_theta", config.rope_theta);
  check_rope_scaling(config);
  check_positive("model.norm_epsilon", config.norm_epsilon);
  check_positive("model.init_std", config.init_std);
  if (config.dtype != DType::bf16 && config.dtype != DType::f32) {
    throw ModelConfigError(
        "model.dtype",
        fmt::format("model.dtype is {}, but weights and activations are bf16 or fp32", name_of(config.dtype)),
        "use bf16");
  }
}

}  // namespace nibble
