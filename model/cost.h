// The parameters and FLOPs of a model, computed from its shape alone.
#pragma once

#include <cstdint>

#include "model/config.h"

namespace nibble {

struct ModelCost {
  uint64_t parameters = 0;            // all parameters; a tied head counts once
  uint64_t active_parameters = 0;     // of the main model, those that a token is computed with
  uint64_t embedding_parameters = 0;  // embedding and, if untied, head
  uint64_t linear_parameters = 0;     // of the blocks' linear layers
  // FLOPs for forward and backward of one token at full context, where a multiply-add counts as two: 6 per linear and
  // head parameter, plus attention scores and values over the causal half.
  double training_flops_per_token = 0;
  double forward_flops_per_token = 0;
};

// Throws a ModelConfigError if the pattern has a character that names no kind of block.
ModelCost model_cost(const ModelConfig& config);

}  // namespace nibble
