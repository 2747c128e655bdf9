// The model that a run trains, of its shape and with its memory plan, under any recipe.
#pragma once

#include <memory>

#include "model/language_model.h"
#include "trainer/config/run_config.h"

namespace nibble {

// Takes memory for forward and backward passes over the run's micro-batches.
std::unique_ptr<LanguageModel> make_training_model(const RunConfig& config, const Recipe& recipe);

}  // namespace nibble
