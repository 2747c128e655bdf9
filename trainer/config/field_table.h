// The one table of configuration keys. Everything that knows the list of keys is made from it: the parser, the resolved
// YAML, the resume check, the JSON Schema and docs/configuration.md.
// The rows are field_table.cpp, reading and printing of values field_value.cpp, schema and documentation
// config_reference.cpp.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "trainer/config/run_config.h"
#include "trainer/config/yaml_document.h"

namespace nibble {

// A key's place in a RunConfig, typed by how its value is written.
struct PathField {
  std::string* value;  // made absolute
};
struct PathListField {
  std::vector<std::string>* value;  // glob patterns, made absolute; YAML: one string or a list
};
struct ChoiceField {
  uint8_t* value;  // index into names
  std::vector<std::string_view> names;
};
struct KeyListField {
  std::vector<std::string>* value;  // names of other keys
};
using FieldTarget = std::variant<std::string*, int64_t*, uint64_t*, double*, bool*, PathField, PathListField,
                                 ChoiceField, KeyListField, Recipe*>;

// Numbers: the accepted range, in the value's unit. above_minimum excludes the minimum itself.
struct FieldRange {
  double minimum = 0;
  double maximum = 0;
  bool above_minimum = false;
};

struct Field {
  std::string_view key;  // "train.steps"
  FieldTarget (*target)(RunConfig&);
  std::string_view documentation;
  ResumeClass resume = ResumeClass::numeric;
  std::string_view compare_group = {};  // see ConfigDifference
  FieldRange range = {};
  std::string_view unit = {};
  bool required = false;
};

// In the order of the resolved YAML: keys of one section stand together.
std::span<const Field> config_fields();
const Field* find_field(std::string_view key);

// Sets the field from its node. Throws ExitCode::bad_config with the node's place: wrong type, out of range, unknown
// choice. Recipes named by a word are looked for from `config_directory`.
void read_field(const Field& field, const YamlNode& node, const std::string& config_directory, RunConfig& config);

// The value as YAML on one line; for a recipe its name.
std::string field_text(const Field& field, const RunConfig& config);
bool same_value(const Field& field, const RunConfig& a, const RunConfig& b);

// The accepted range of a number, "1 to 4294967295" or "above 0, up to 10"; empty for fields that are not numbers.
std::string range_text(const Field& field);
// "frozen", "numeric", "free".
std::string_view name_of(ResumeClass resume);

}  // namespace nibble
