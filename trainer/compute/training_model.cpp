#include "trainer/compute/training_model.h"

#include "trainer/compute/run_device.h"

namespace nibble {

std::unique_ptr<LanguageModel> make_training_model(const RunConfig& config, const Recipe& recipe) {
  return std::make_unique<LanguageModel>(config.model, recipe,
                                         LanguageModelOptions{.sequences = config.train.micro_batch_sequences,
                                                              .sequence_length = config.model.sequence_length,
                                                              .training = true,
                                                              .device = device_of(config),
                                                              .document_mask = config.data.document_mask,
                                                              .head_chunk_tokens = config.train.head_chunk_tokens,
                                                              .graphs = config.cuda.graphs,
                                                              .recompute = recompute_blocks(config)});
}

}  // namespace nibble
