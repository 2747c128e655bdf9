// The shape of a model as Hugging Face's config.json says it, in both directions. One row an architecture that nibble
// has; docs/huggingface.md lists them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "model/config.h"
#include "trainer/huggingface/names.h"
#include "trainer/huggingface/tokenizer_files.h"

namespace nibble {

struct Architecture {
  std::string_view model_type;  // "llama"
  std::string_view name;        // "LlamaForCausalLM"
  bool qk_norm = false;
  bool qkv_bias = false;
  const NameTable& names;
};
std::span<const Architecture> architectures();

struct DescribedModel {
  const Architecture* architecture = nullptr;
  ModelConfig model;  // dtype: bf16 for weights of 16 bits, f32 for wider ones; sequence_length: the longest context
};

// Reads DIRECTORY/config.json. Throws ExitCode::missing_input if there is none, and ExitCode::bad_data, naming the file
// and the key, for an architecture that nibble does not have and for a setting of one that nibble would compute
// otherwise: another activation, other biases, windows, other rotary scalings, packed weights.
DescribedModel read_config_json(const std::filesystem::path& directory);

// Returns the architecture that computes what a model of this shape computes. Throws ExitCode::bad_config, naming the
// keys, if there is none.
const Architecture& architecture_of(const ModelConfig& model);

// Returns the number of layers of a model that has an architecture.
int64_t layers_of(const Architecture& architecture, const ModelConfig& model);

// Returns the text of config.json, without a time or a version in it. `dtype` is "bfloat16" or "float32";
// `quantization` is the member quantization_config, or null. Without `tokens` the ids are null.
std::string config_json(const ModelConfig& model, const std::optional<SpecialTokenIds>& tokens, std::string_view dtype,
                        const nlohmann::ordered_json& quantization);

}  // namespace nibble
