// The model that a run trains: its shape and memory plan come from the configuration, its recipe is given.
#pragma once

#include <memory>

#include "model/language_model.h"
#include "model/ops/attention/attention.h"
#include "trainer/config/run_config.h"

namespace nibble {

// What the run's micro-batches ask of attention.
AttentionUse attention_use(const RunConfig& config);

// Makes the model and takes memory for forward and backward passes over the run's micro-batches.
std::unique_ptr<LanguageModel> make_training_model(const RunConfig& config, const Recipe& recipe);
// Makes a model that is good for what it says of itself, its memory() above all, and takes none.
std::unique_ptr<LanguageModel> plan_training_model(const RunConfig& config, const Recipe& recipe);
// Returns the bytes that make_training_model() would take, without taking them.
uint64_t training_model_bytes(const RunConfig& config, const Recipe& recipe);

}  // namespace nibble
