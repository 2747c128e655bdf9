// Where the keys of `model` come from that a configuration does not give: first from the file that model.preset names,
// then from the model that the run starts from (model.from).
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "model/config.h"
#include "trainer/yaml/yaml_document.h"

namespace nibble {

struct Field;

// Returns the shape of a model in a directory or a run; `from` is the absolute value of model.from.
using ModelReader = std::function<ModelConfig(const std::string& from)>;

// Adds what is missing to the mapping `model` of a configuration, and clears model.preset, which has then had its
// effect. Returns the shape of the model that the run starts from, if there is one and a reader is given. Throws
// ExitCode::missing_input if there is no such preset, ExitCode::bad_config for a preset that is no mapping of keys of
// `model`, and what the reader throws.
std::optional<ModelConfig> complete_model(YamlNode& root, const std::string& config_directory,
                                          const ModelReader& reader);

// Returns whether a key of `model` says what the weights mean, so that a run that starts from a model must have the
// model's value. With `skips`, some tensors of that model are left out, and keys that only size them may differ.
bool is_bound_to_weights(const Field& field, bool skips);

}  // namespace nibble
