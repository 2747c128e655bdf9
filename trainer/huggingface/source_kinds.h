// The kinds of trainer/huggingface/model_source.h.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "trainer/checkpoint/checkpoint_content.h"
#include "trainer/huggingface/architecture.h"
#include "trainer/huggingface/model_source.h"

namespace nibble {

// Returns whether a directory has a config.json.
bool is_huggingface(const std::filesystem::path& directory);
// The weights lie in model.safetensors, or in the files that model.safetensors.index.json names.
std::unique_ptr<ModelSource> open_huggingface(const std::string& directory);

// Returns the shape of a checkpoint's model, from its configuration.
ModelConfig checkpoint_model(const std::string& location);
// Reads elements of a tensor's weights, widened to FP32. Not collective.
void read_weights(const CheckpointInfo& checkpoint, uint32_t tensor, uint64_t first, std::span<float> values);
// Collective.
std::unique_ptr<ModelSource> open_checkpoint_source(Communicator& communicator, const std::string& location);

}  // namespace nibble
