// The shape of a language model. The trainer reads it from YAML.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "dist/base/error.h"
#include "quant/format/dtype.h"

namespace nibble {

// What is wrong with a model's shape. `key` is the key of the configuration that is to blame, such as
// "model.hidden_size"; it is empty where no key alone is.
class ModelConfigError : public Error {
 public:
  ModelConfigError(std::string key, const std::string& what, const std::string& remedy)
      : Error(ExitCode::bad_config, what, remedy), key_(std::move(key)) {}
  const std::string& key() const { return key_; }

 private:
  std::string key_;
};

struct ModelConfig {
  // One character a block, first to last (model/blocks/block_kind.h). "*-*-" is two layers of a Llama.
  std::string pattern;
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;  // width of the residual stream
  int64_t query_heads = 0;
  int64_t kv_heads = 0;           // divides query_heads
  int64_t head_dim = 0;           // even
  bool qkv_bias = false;          // queries, keys and values have biases, as in Qwen2
  bool qk_norm = false;           // heads of queries and keys are normalised before they are rotated, as in Qwen3
  int64_t intermediate_size = 0;  // width of the SwiGLU MLP
  int64_t sequence_length = 0;    // longest context
  double rope_theta = 10000.0;
  // Rotary scaling of Llama 3 (model/ops/rope.h); a factor of 1 scales nothing.
  double rope_scaling_factor = 1;
  double rope_low_frequency_factor = 1;
  double rope_high_frequency_factor = 4;
  int64_t rope_original_length = 8192;  // context before the scaling
  double norm_epsilon = 1e-5;
  bool tied_head = false;  // the head shares the embedding's weights
  double init_std = 0.02;  // standard deviation; of projections back into the residual stream: init_std / sqrt(blocks)
  DType dtype = DType::bf16;  // of weights and activations; f32 is for debugging and tests

  int64_t blocks() const { return static_cast<int64_t>(pattern.size()); }
};

constexpr int64_t largest_pattern = 1 << 20;  // blocks

// Writes out the groups of a pattern: "(*-)x3" becomes "*-*-*-". Groups may hold groups. Throws a ModelConfigError.
std::string expanded_pattern(std::string_view pattern);

// These throw a ModelConfigError with `key`. `name`, for messages, are the sizes that make up the value.
void check_size(const std::string& key, const std::string& name, int64_t value);
void check_multiple(const std::string& key, const std::string& name, int64_t value);  // of 16: quantised in blocks
inline void check_size(const std::string& key, int64_t value) {
  check_size(key, key, value);
}
inline void check_multiple(const std::string& key, int64_t value) {
  check_multiple(key, key, value);
}
// The random streams number a tensor's elements with 40 bits. Sizes are at most 2^32 and 2^30, so their product does
// not overflow.
void check_matrix(const char* what, int64_t rows, int64_t columns);

}  // namespace nibble
