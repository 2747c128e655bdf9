#include "trainer/config/config_override.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

namespace nibble {
namespace {

SourceLocation location_of(const std::string& source) {
  return {std::make_shared<const std::string>(source), 0, 0};
}

void set_location(YamlNode& node, const SourceLocation& location) {
  node.location = location;
  for (YamlNode& item : node.items) set_location(item, location);
  for (YamlEntry& entry : node.entries) {
    entry.location = location;
    set_location(entry.value, location);
  }
}

YamlNode value_of(const ConfigOverride& assignment) {
  const std::string& text = assignment.value;
  const bool is_yaml = !text.empty() && std::string_view("[{\"'").find(text.front()) != std::string_view::npos;
  return is_yaml ? parse_yaml(text, assignment.source) : plain_scalar(text, assignment.source);
}

}  // namespace

ConfigOverride parse_override(const std::string& assignment) {
  constexpr size_t longest = 100;
  const std::string source =
      "--set " + (assignment.size() <= longest ? assignment : assignment.substr(0, longest) + "...");
  const size_t equals = assignment.find('=');
  if (equals == std::string::npos || equals == 0) {
    refuse_config(location_of(source), "not of the form key=value", "write for example --set train.steps=100");
  }
  return {assignment.substr(0, equals), assignment.substr(equals + 1), source};
}

std::vector<ConfigOverride> parse_overrides(const std::vector<std::string>& assignments) {
  std::vector<ConfigOverride> overrides;
  overrides.reserve(assignments.size());
  for (const std::string& assignment : assignments) overrides.push_back(parse_override(assignment));
  return overrides;
}

void apply_override(YamlNode& root, const ConfigOverride& assignment) {
  const SourceLocation location = location_of(assignment.source);
  YamlNode value = value_of(assignment);
  set_location(value, location);

  const std::string_view path = assignment.key;
  YamlNode* node = &root;
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find('.', begin), path.size());
    const std::string key(path.substr(begin, end - begin));
    if (key.empty()) refuse_config(location, "an empty word in the key", "write for example --set train.steps=100");
    if (node->kind == YamlNode::Kind::null) node->kind = YamlNode::Kind::map;
    if (node->kind != YamlNode::Kind::map) {
      refuse_config(location,
                    fmt::format("\"{}\" is not a mapping (set at {})", path.substr(0, begin == 0 ? 0 : begin - 1),
                                node->location.text()),
                    "set the whole value instead");
    }
    YamlEntry* entry = node->find(key);
    if (entry == nullptr) {
      YamlEntry created;
      created.key = key;
      created.value.location = location;
      node->entries.push_back(std::move(created));
      entry = &node->entries.back();
    }
    entry->location = end == path.size() ? location : entry->location;
    if (!entry->location.source) entry->location = location;
    node = &entry->value;
    begin = end + 1;
  }
  *node = std::move(value);
}

}  // namespace nibble
