#include "model/config.h"

#include <fmt/format.h>

#include <cmath>

#include "dist/base/error.h"

namespace nibble {
namespace {

constexpr int64_t block_size = 16;  // elements that share a scale
// The limit is above any model that fits a machine and below any overflow in products of two sizes.
constexpr int64_t largest_size = int64_t{1} << 30;

[[noreturn]] void fail(const std::string& what, const std::string& remedy) {
  throw Error(ExitCode::bad_config, what, remedy);
}

void check_size(const char* key, int64_t value) {
  if (value < 1 || value > largest_size) {
    fail(fmt::format("model.{} is {}, outside 1 to {}", key, value, largest_size), fmt::format("set model.{}", key));
  }
}

void check_multiple(const std::string& key, int64_t value) {
  if (value % block_size == 0) return;
  fail(fmt::format("{} is {}, not a multiple of 16: linear layers are quantised in blocks of 16", key, value),
       value < block_size ? fmt::format("use {}", block_size)
                          : fmt::format("use {} or {}", value - value % block_size, round_up(value, block_size)));
}

void check_pattern(const std::string& pattern) {
  if (pattern.empty()) fail("model.pattern is empty", "give one character a block, such as \"*-*-\"");
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] == '*' || pattern[i] == '-') continue;
    fail(fmt::format("model.pattern has '{}' at position {}, which names no kind of block", pattern[i], i),
         "use '*' for attention and '-' for an MLP");
  }
}

// The random streams number a tensor's elements with 40 bits. Sizes are at most 2^32 and 2^30, so their product does
// not overflow.
void check_matrix(const char* what, int64_t rows, int64_t columns) {
  constexpr int64_t most_elements = int64_t{1} << 40;
  if (rows * columns < most_elements) return;
  fail(fmt::format("{} would be a matrix of {} x {}: 2^40 elements or more", what, rows, columns),
       "use smaller sizes in the section model");
}

void check_heads(const ModelConfig& config) {
  check_size("query_heads", config.query_heads);
  check_size("kv_heads", config.kv_heads);
  check_size("head_dim", config.head_dim);
  if (config.query_heads % config.kv_heads != 0) {
    fail(fmt::format("model.kv_heads {} does not divide model.query_heads {}", config.kv_heads, config.query_heads),
         "give every key-value head the same number of query heads");
  }
  if (config.head_dim % 2 != 0) {
    fail(fmt::format("model.head_dim is {}, but rotary positions turn pairs of elements", config.head_dim),
         "use an even model.head_dim");
  }
  check_size("query_heads * head_dim", config.query_heads * config.head_dim);
  check_multiple("model.query_heads * model.head_dim", config.query_heads * config.head_dim);
  check_multiple("(model.query_heads + 2 * model.kv_heads) * model.head_dim",
                 (config.query_heads + 2 * config.kv_heads) * config.head_dim);
  check_matrix("the projection of queries, keys and values",
               (config.query_heads + 2 * config.kv_heads) * config.head_dim, config.hidden_size);
}

void check_positive(const char* key, double value) {
  if (!std::isfinite(value) || value <= 0) {
    fail(fmt::format("model.{} is {}, not a positive number", key, value), fmt::format("set model.{}", key));
  }
}

}  // namespace

void validate(const ModelConfig& config) {
  check_pattern(config.pattern);
  check_size("vocab_size", config.vocab_size);
  check_size("hidden_size", config.hidden_size);
  check_size("sequence_length", config.sequence_length);
  check_multiple("model.vocab_size", config.vocab_size);
  check_multiple("model.hidden_size", config.hidden_size);
  check_matrix("the embedding", config.vocab_size, config.hidden_size);
  if (config.pattern.find('*') != std::string::npos) check_heads(config);
  if (config.pattern.find('-') != std::string::npos) {
    check_size("intermediate_size", config.intermediate_size);
    check_multiple("model.intermediate_size", config.intermediate_size);
    check_matrix("the first matrix of an MLP", 2 * config.intermediate_size, config.hidden_size);
  }
  check_positive("rope_theta", config.rope_theta);
  check_positive("norm_epsilon", config.norm_epsilon);
  check_positive("init_std", config.init_std);
  if (config.dtype != DType::bf16 && config.dtype != DType::f32) {
    fail(fmt::format("model.dtype is {}, but weights and activations are bf16 or fp32", name_of(config.dtype)),
         "use bf16");
  }
}

}  // namespace nibble
