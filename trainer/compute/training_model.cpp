#include "trainer/compute/training_model.h"

#include "trainer/compute/run_device.h"
#include "trainer/config/recompute_blocks.h"

namespace nibble {

AttentionUse attention_use(const RunConfig& config) {
  return {.shape = {.sequences = config.train.micro_batch_sequences,
                    .sequence_length = config.model.sequence_length,
                    .query_heads = config.model.query_heads,
                    .kv_heads = config.model.kv_heads,
                    .head_dim = config.model.head_dim,
                    .document_mask = config.data.document_mask},
          .dtype = config.model.dtype,
          .training = true};
}

namespace {

LanguageModelOptions training_options(const RunConfig& config) {
  return {.sequences = config.train.micro_batch_sequences,
          .sequence_length = config.model.sequence_length,
          .training = true,
          .device = device_of(config),
          .document_mask = config.data.document_mask,
          .head_chunk_tokens = config.train.head_chunk_tokens,
          .sums_micro_batches = config.gradient_groups() < static_cast<uint64_t>(config.micro_batches_per_step()),
          .graphs = config.cuda.graphs,
          .recompute = recompute_blocks(config)};
}

}  // namespace

std::unique_ptr<LanguageModel> make_training_model(const RunConfig& config, const Recipe& recipe) {
  return std::make_unique<LanguageModel>(config.model, recipe, training_options(config));
}

std::unique_ptr<LanguageModel> plan_training_model(const RunConfig& config, const Recipe& recipe) {
  LanguageModelOptions options = training_options(config);
  options.measure_only = true;
  return std::make_unique<LanguageModel>(config.model, recipe, options);
}

uint64_t training_model_bytes(const RunConfig& config, const Recipe& recipe) {
  return plan_training_model(config, recipe)->memory_bytes();
}

}  // namespace nibble
