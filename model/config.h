// The shape of a language model. The trainer reads it from YAML.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

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

enum class BlockKind : uint8_t { attention, mlp };

struct ModelConfig {
  // One character a block, first to last, as block_kinds() reads it. "*-*-" is two layers of a Llama.
  std::string pattern;
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;  // width of the residual stream
  int64_t query_heads = 0;
  int64_t kv_heads = 0;           // divides query_heads
  int64_t head_dim = 0;           // even
  int64_t intermediate_size = 0;  // width of the SwiGLU MLP
  int64_t sequence_length = 0;    // longest context
  double rope_theta = 10000.0;
  double norm_epsilon = 1e-5;
  bool tied_head = false;  // the head shares the embedding's weights
  double init_std = 0.02;  // standard deviation; of projections back into the residual stream: init_std / sqrt(blocks)
  DType dtype = DType::bf16;  // of weights and activations; f32 is for debugging and tests

  int64_t blocks() const { return static_cast<int64_t>(pattern.size()); }
};

// Returns the blocks of a pattern, first to last: '*' is attention, '-' is an MLP. An empty pattern and any other
// character throw a ModelConfigError, with the key model.pattern and the character.
std::vector<BlockKind> block_kinds(const std::string& pattern);
// Returns true if a block of the model is of this kind. Throws like block_kinds().
bool has_block(const ModelConfig& config, BlockKind kind);

// Throws a ModelConfigError with the key and the remedy for unknown pattern characters, heads that do not divide, and
// sizes that are not multiples of 16 (every linear layer's axes are quantised in blocks of 16).
void validate(const ModelConfig& config);

}  // namespace nibble
