// A model with the weights of a checkpoint, and with what its run remembers (trainer/state/run_states.h) as far as a
// model that does not train uses it. It takes no memory for training.
#pragma once

#include <cstdint>
#include <memory>

#include "dist/base/hash.h"
#include "dist/device/arena.h"
#include "dist/ranks/self_communicator.h"
#include "model/language_model.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/config/run_config.h"
#include "trainer/state/step_state.h"

namespace nibble {

class InferenceModel {
 public:
  // Takes shape and recipe from `config`, a resolved configuration: its vocabulary size is set. Not collective.
  InferenceModel(const CheckpointInfo& checkpoint, const RunConfig& config, int64_t micro_batch_sequences,
                 bool decoding = false);
  LanguageModel& model() { return *model_; }

 private:
  std::unique_ptr<LanguageModel> model_;
  Arena weights_arena_;
  Arena host_arena_;
  SelfCommunicator communicator_;  // each rank reads the states for itself
  StepStates states_;
};

// Throws ExitCode::bad_data if `vocab_size`, that of `what`, is larger than the model's, which may be rounded up.
void check_vocabulary(const RunConfig& config, const std::string& what, uint32_t vocab_size);

// Throws ExitCode::bad_data if shards or a tokenizer (`what`) are not of the tokenizer that the checkpoint's run was
// trained with, whose token ids mean other text. With `allow_other` it only warns. A tokenizer that the checkpoint or
// `hash` does not name (zeros) passes: llm.c's shards name none.
void check_tokenizer(const CheckpointInfo& checkpoint, const std::string& what, const Hash128& hash, bool allow_other);

// Returns the configuration inside a checkpoint, with overrides.
RunConfig config_of_checkpoint(const CheckpointInfo& checkpoint, const std::vector<ConfigOverride>& overrides);
// Reads the configuration of a run directory, of a checkpoint's directory or of RUN_DIR@STEP without opening a
// checkpoint. Throws ExitCode::missing_input if there is none.
RunConfig config_beside(const std::filesystem::path& path, const std::vector<ConfigOverride>& overrides);

}  // namespace nibble
