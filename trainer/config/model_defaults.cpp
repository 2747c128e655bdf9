#include "trainer/config/model_defaults.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <string_view>

#include "dist/base/error.h"
#include "dist/base/text.h"
#include "trainer/config/config_files.h"
#include "trainer/config/field_table.h"
#include "trainer/config/user_path.h"

namespace nibble {
namespace {

constexpr std::string_view section = "model.";
// Keys of `model` that say where the others come from.
constexpr std::array<std::string_view, 3> origins = {"model.from", "model.from_skip", "model.preset"};
// Keys that say how a run uses the weights, not what they mean: a run may have others than its model.
constexpr std::array<std::string_view, 3> uses = {"model.sequence_length", "model.init_std", "model.dtype"};
// Keys that change nothing but which tensors there are, and their sizes.
constexpr std::array<std::string_view, 6> sizes = {"model.pattern",   "model.vocab_size", "model.intermediate_size",
                                                   "model.tied_head", "model.qk_norm",    "model.qkv_bias"};

template <size_t count>
bool is_one_of(std::string_view key, const std::array<std::string_view, count>& keys) {
  return std::find(keys.begin(), keys.end(), key) != keys.end();
}

bool is_shape(const Field& field) {
  return field.key.starts_with(section) && !is_one_of(field.key, origins);
}

// Returns the scalar at a key of `model`; empty if it is not there or no scalar, which its reader refuses.
std::string scalar_of(const YamlNode& model, std::string_view key) {
  const YamlEntry* const entry = model.find(key);
  return entry != nullptr && entry->value.kind == YamlNode::Kind::scalar ? entry->value.text : std::string();
}

void add_missing(YamlNode& model, const YamlNode& more) {
  for (const YamlEntry& entry : more.entries) {
    if (model.find(entry.key) == nullptr) model.entries.push_back(entry);
  }
}

YamlNode read_preset(const std::string& name, const SourceLocation& location, const std::string& config_directory) {
  std::string path;
  try {
    path = is_config_path(name)
               ? expand_path(name)
               : find_config_file("model preset", name, config_directories("models", config_directory));
  } catch (const Error& error) {
    if (error.code() == ExitCode::usage) refuse_config(location, error.what(), error.remedy());
    throw Error(error.code(), fmt::format("{}: {}", location.text(), error.what()), error.remedy());
  }
  YamlNode preset = read_yaml_file(path);
  if (preset.kind != YamlNode::Kind::map) {
    refuse_config(preset.location, "a model preset is a mapping", "write its keys without `model:` above them");
  }
  for (const YamlEntry& entry : preset.entries) {
    const Field* const field = find_field(std::string(section) + entry.key);
    if (field != nullptr && is_shape(*field)) continue;
    refuse_config(entry.location, fmt::format("{} is no key of a model preset", shown(entry.key)),
                  "write keys of the section model, without `model:` above them; `nibble config reference` lists them");
  }
  return preset;
}

// Returns the keys of a model as a configuration has them.
YamlNode node_of(const ModelConfig& model, const std::string& name) {
  RunConfig config;
  config.model = model;
  std::string text;
  for (const Field& field : config_fields()) {
    if (is_shape(field)) text += fmt::format("{}: {}\n", field.key.substr(section.size()), field_text(field, config));
  }
  return parse_yaml(text, name);
}

}  // namespace

std::optional<ModelConfig> complete_model(YamlNode& root, const std::string& config_directory,
                                          const ModelReader& reader) {
  YamlEntry* const entry = root.find("model");
  if (entry == nullptr || entry->value.kind != YamlNode::Kind::map) return std::nullopt;
  YamlNode& model = entry->value;
  if (const std::string preset = scalar_of(model, "preset"); !preset.empty()) {
    YamlNode& name = model.find("preset")->value;
    const YamlNode keys = read_preset(preset, name.location, config_directory);
    name.text.clear();
    name.quoted = true;
    add_missing(model, keys);
  }
  const std::string from = scalar_of(model, "from");
  if (from.empty() || !reader) return std::nullopt;
  const SourceLocation& location = model.find("from")->value.location;
  std::string path;
  try {
    path = std::filesystem::absolute(expand_path(from)).lexically_normal().string();
  } catch (const Error& error) {
    refuse_config(location, error.what(), error.remedy());
  }
  const ModelConfig found = reader(path);
  add_missing(model, node_of(found, path));
  return found;
}

bool is_bound_to_weights(const Field& field, bool skips) {
  return is_shape(field) && !is_one_of(field.key, uses) && !(skips && is_one_of(field.key, sizes));
}

}  // namespace nibble
