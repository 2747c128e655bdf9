#include "trainer/inference/inference_model.h"

#include <fmt/format.h>

#include "dist/base/log.h"
#include "model/objectives/head.h"
#include "trainer/checkpoint/checkpoint_directory.h"
#include "trainer/checkpoint/manifest.h"
#include "trainer/compute/run_device.h"
#include "trainer/state/run_states.h"

namespace nibble {

InferenceModel::InferenceModel(const CheckpointInfo& checkpoint, const RunConfig& config, int64_t micro_batch_sequences,
                               bool decoding)
    : model_(std::make_unique<LanguageModel>(
          config.model,
          recipe_at(config.recipe, checkpoint.step == 0 ? 0 : checkpoint.step - 1,
                    static_cast<uint64_t>(config.train.steps)),
          LanguageModelOptions{
              .sequences = micro_batch_sequences,
              .sequence_length = config.model.sequence_length,
              .training = false,
              .decoding = decoding,
              .device = device_of(config),
              .document_mask = config.data.document_mask,
              .head_chunk_tokens = head_chunk_tokens(micro_batch_sequences * config.model.sequence_length,
                                                     config.model.vocab_size, device_of(config)),
              .recompute = {}})),
      weights_arena_("weights", device_of(config)),
      host_arena_("state on the CPU") {
  const Layout layout = model_->parameters().layout();
  Tensor weights;
  Arena* const arenas[] = {&weights_arena_, &host_arena_};
  add_states(states_, {.communicator = communicator_, .config = config, .model = *model_});
  planned(arenas, [&] {
    weights = allocate_weights(weights_arena_, layout);
    states_.allocate({.host = host_arena_, .device = weights_arena_});
  });
  load_array(checkpoint, layout, weights_array(weights, layout));
  states_.load(StateReader(checkpoint));
  states_.attach(*model_);
  model_->bind(weights, {});
  model_->set_weights_changed();
}

void check_vocabulary(const RunConfig& config, const std::string& what, uint32_t vocab_size) {
  if (int64_t{vocab_size} <= config.model.vocab_size) return;
  throw Error(ExitCode::bad_data,
              fmt::format("the vocabulary of {} has {} tokens, that of the model {}", what, vocab_size,
                          config.model.vocab_size),
              "name the tokenizer that the run's shards were made with, or shards made with it");
}

void check_tokenizer(const CheckpointInfo& checkpoint, const std::string& what, const Hash128& hash, bool allow_other) {
  const std::string own =
      checkpoint.format_version == 1 ? tokenizer_of_version_1(checkpoint) : checkpoint.data.tokenizer;
  const std::string other = to_hex(hash);
  const auto named = [](const std::string& digits) { return digits.find_first_not_of('0') != std::string::npos; };
  if (own == other || !named(own) || !named(other)) return;
  const std::string text = fmt::format("{} {} of another tokenizer than the run's training shards ({}, not {})", what,
                                       what.ends_with("shards") ? "are" : "is", other, own);
  if (!allow_other) {
    throw Error(ExitCode::bad_data, text,
                "name the tokenizer that the run's shards were made with, or shards made with it; --any-tokenizer goes "
                "on in spite of it");
  }
  log_warning("{}", text);
}

RunConfig config_beside(const std::filesystem::path& path, const std::vector<ConfigOverride>& overrides) {
  const std::filesystem::path directory = std::filesystem::absolute(written_checkpoint(path)).lexically_normal();
  if (!std::filesystem::exists(directory / "config.yaml")) {
    throw Error(ExitCode::missing_input,
                fmt::format("{} is not a run directory: it has no config.yaml", directory.string()),
                "name the run.dir of a run that nibble train has started");
  }
  return parse_run_config(directory / "config.yaml", overrides);
}

RunConfig config_of_checkpoint(const CheckpointInfo& checkpoint, const std::vector<ConfigOverride>& overrides) {
  return parse_run_config_text(checkpoint.config_yaml, checkpoint.directory / "config.yaml", overrides);
}

}  // namespace nibble
