// What a model costs, from its shape alone.
#pragma once

#include <cstdint>

#include "model/config.h"

namespace nibble {

struct ModelCost {
  uint64_t parameters = 0;            // all, a tied head counted once
  uint64_t embedding_parameters = 0;  // embedding and, if untied, head
  uint64_t linear_parameters = 0;     // of the blocks' linear layers
  // Multiply-adds counted as two. Forward and backward of one token at full context: 6 per linear and head parameter,
  // plus attention scores and values over the causal half.
  double training_flops_per_token = 0;
  double forward_flops_per_token = 0;
};

ModelCost model_cost(const ModelConfig& config);

}  // namespace nibble
