// What the keys of a configuration must fulfil together, beyond the ranges that the table of keys has for each.
#pragma once

#include <map>
#include <string_view>

#include "trainer/config/run_config.h"
#include "trainer/yaml/yaml_document.h"

namespace nibble {

// Where the keys of a configuration were set.
struct KeyLocations {
  SourceLocation document;
  std::map<std::string_view, SourceLocation> keys;  // those that were set; others have their default

  bool contains(std::string_view key) const { return keys.contains(key); }
  // The location of a key that was set, and else the document as a whole.
  const SourceLocation& of(std::string_view key) const;
};

// Writes model.pattern out, because everything else counts its characters, and compares it with that of a checkpoint.
// Throws ExitCode::bad_config at the key's location, as check_config() does.
void expand_pattern(RunConfig& config, const KeyLocations& locations);

// Throws ExitCode::bad_config at the location of the key that does not fit the others. Of the two keys for the groups
// of micro-batches, one may be a default that gives way to the other.
void check_config(RunConfig& config, const KeyLocations& locations);

}  // namespace nibble
