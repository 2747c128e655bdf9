#include "model/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string_view>

#include "dist/base/error.h"
#include "dist/base/utf8.h"
#include "quant/format/format.h"

namespace nibble {
namespace {

// The limit is above any model that fits a machine and below any overflow in products of two sizes.
constexpr int64_t largest_size = int64_t{1} << 30;

[[noreturn]] void fail(const std::string& key, const std::string& what, const std::string& remedy) {
  throw ModelConfigError(key, what, remedy);
}

// `name`: the sizes that make up the value, for messages; `key` is the one to blame.
void check_size(const std::string& key, const std::string& name, int64_t value) {
  if (value < 1 || value > largest_size) {
    fail(key, fmt::format("{} is {}, outside 1 to {}", name, value, largest_size), fmt::format("set {}", name));
  }
}
void check_size(const std::string& key, int64_t value) {
  check_size(key, key, value);
}

void check_multiple(const std::string& key, const std::string& name, int64_t value) {
  if (value % block_rows == 0) return;
  fail(key,
       fmt::format("{0} is {1}, not a multiple of {2}: linear layers are quantised in blocks of {2}", name, value,
                   block_rows),
       value < block_rows ? fmt::format("use {}", block_rows)
                          : fmt::format("use {} or {}", value - value % block_rows, round_up(value, block_rows)));
}
void check_multiple(const std::string& key, int64_t value) {
  check_multiple(key, key, value);
}

// The random streams number a tensor's elements with 40 bits. Sizes are at most 2^32 and 2^30, so their product does
// not overflow.
void check_matrix(const char* what, int64_t rows, int64_t columns) {
  constexpr int64_t most_elements = int64_t{1} << 40;
  if (rows * columns < most_elements) return;
  fail("", fmt::format("{} would be a matrix of {} x {}: 2^40 elements or more", what, rows, columns),
       "use smaller sizes in the section model");
}

void check_heads(const ModelConfig& config) {
  check_size("model.query_heads", config.query_heads);
  check_size("model.kv_heads", config.kv_heads);
  check_size("model.head_dim", config.head_dim);
  if (config.query_heads % config.kv_heads != 0) {
    fail("model.kv_heads",
         fmt::format("model.kv_heads {} does not divide model.query_heads {}", config.kv_heads, config.query_heads),
         "give every key-value head the same number of query heads");
  }
  if (config.head_dim % 2 != 0) {
    fail("model.head_dim",
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

void check_positive(const std::string& key, double value) {
  if (!std::isfinite(value) || value <= 0) {
    fail(key, fmt::format("{} is {}, not a positive number", key, value), fmt::format("set {}", key));
  }
}

// Returns the whole UTF-8 character that begins at `index`.
std::string_view character_at(std::string_view text, size_t index) {
  text.remove_prefix(index);
  return text.substr(0, code_point_boundary(text, 1));
}

}  // namespace

std::vector<BlockKind> block_kinds(const std::string& pattern) {
  if (pattern.empty()) fail("model.pattern", "model.pattern is empty", "give one character a block, such as \"*-*-\"");
  std::vector<BlockKind> kinds;
  kinds.reserve(pattern.size());
  for (size_t i = 0; i < pattern.size(); ++i) {
    switch (pattern[i]) {
      case '*': kinds.push_back(BlockKind::attention); break;
      case '-': kinds.push_back(BlockKind::mlp); break;
      default:
        fail("model.pattern",
             fmt::format("model.pattern has '{}' at position {}, which names no kind of block",
                         character_at(pattern, i), i),
             "use '*' for attention and '-' for an MLP");
    }
  }
  return kinds;
}

bool has_block(const ModelConfig& config, BlockKind kind) {
  const std::vector<BlockKind> kinds = block_kinds(config.pattern);
  return std::find(kinds.begin(), kinds.end(), kind) != kinds.end();
}

void validate(const ModelConfig& config) {
  const bool attention = has_block(config, BlockKind::attention);
  const bool mlp = has_block(config, BlockKind::mlp);
  check_size("model.vocab_size", config.vocab_size);
  check_size("model.hidden_size", config.hidden_size);
  check_size("model.sequence_length", config.sequence_length);
  check_multiple("model.vocab_size", config.vocab_size);
  check_multiple("model.hidden_size", config.hidden_size);
  check_matrix("the embedding", config.vocab_size, config.hidden_size);
  if (attention) check_heads(config);
  if (mlp) {
    check_size("model.intermediate_size", config.intermediate_size);
    check_multiple("model.intermediate_size", config.intermediate_size);
    check_matrix("the first matrix of an MLP", 2 * config.intermediate_size, config.hidden_size);
  }
  check_positive("model.rope_theta", config.rope_theta);
  check_positive("model.norm_epsilon", config.norm_epsilon);
  check_positive("model.init_std", config.init_std);
  if (config.dtype != DType::bf16 && config.dtype != DType::f32) {
    fail("model.dtype",
         fmt::format("model.dtype is {}, but weights and activations are bf16 or fp32", name_of(config.dtype)),
         "use bf16");
  }
}

}  // namespace nibble
