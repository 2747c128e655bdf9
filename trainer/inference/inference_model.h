// A model with a checkpoint's weights, and the state of its recipe where the checkpoint has that; no memory for
// training.
#pragma once

#include <cstdint>
#include <memory>

#include "dist/device/arena.h"
#include "model/language_model.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/config/run_config.h"
#include "trainer/state/amax_history.h"

namespace nibble {

class InferenceModel {
 public:
  // Not collective. Takes the shape and the recipe from `config` (a resolved configuration: its vocabulary size is
  // set).
  InferenceModel(const CheckpointInfo& checkpoint, const RunConfig& config, int64_t sequences);
  LanguageModel& model() { return *model_; }

 private:
  std::unique_ptr<LanguageModel> model_;
  Arena weights_arena_;
  Arena history_arena_;  // on the CPU
  std::unique_ptr<AmaxHistory> amax_;
};

// Throws ExitCode::bad_data if `what` knows more tokens than the model, whose vocabulary may be rounded up.
void check_vocabulary(const RunConfig& config, const std::string& what, uint32_t vocab_size);

// The configuration inside a checkpoint, with overrides.
RunConfig config_of_checkpoint(const CheckpointInfo& checkpoint, const std::vector<std::string>& overrides);
// The configuration of a run directory or a checkpoint's directory, before any checkpoint has been opened.
// ExitCode::missing_input if there is none.
RunConfig config_beside(const std::filesystem::path& path, const std::vector<std::string>& overrides);

}  // namespace nibble
