// What the command line changes in a configuration before it is read.
#pragma once

#include <string>
#include <vector>

#include "trainer/yaml/yaml_document.h"

namespace nibble {

// One key and its new value. A value that starts with one of [ { " ' is parsed as YAML; any other is a plain scalar.
struct ConfigOverride {
  std::string key;     // "train.steps"
  std::string value;   // "100"
  std::string source;  // for messages: the option that says so, "--set train.steps=100"
};

// Parses what stands after --set: "train.steps=100". Throws ExitCode::bad_config for another form.
ConfigOverride parse_override(const std::string& assignment);
std::vector<ConfigOverride> parse_overrides(const std::vector<std::string>& assignments);

// Replaces the value at the key of a mapping, and adds the mappings that are missing. Throws ExitCode::bad_config for a
// key with an empty word, or below a value that is no mapping.
void apply_override(YamlNode& root, const ConfigOverride& assignment);

}  // namespace nibble
