// The one table of configuration keys. Everything that knows the list of keys is made from it: the parser, the resolved
// YAML, the resume check, the JSON Schema and docs/configuration.md.
// field_table.cpp holds the rows, field_value.cpp reads values, field_text.cpp prints them, and config_reference.cpp
// writes the schema and the documentation.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "trainer/config/run_config.h"
#include "trainer/yaml/yaml_document.h"

namespace nibble {

// A FieldTarget points to the member of a RunConfig that a key sets. Its type says how the value is written in YAML.
struct PathField {
  std::string* value;  // made absolute
};
struct MixtureField {
  std::vector<ShardSet>* value;  // YAML: a glob pattern or a list of them, made absolute, or a list of weighted parts
};
struct ShardSetsField {
  std::vector<ShardSet>* value;  // YAML: a glob pattern or a list of them, or a mapping of names to such values
};
struct ChoiceField {
  std::vector<std::string_view> names;                // of the values that may be chosen
  std::function<std::string_view()> name;             // of the value that is set
  std::function<void(std::string_view name)> choose;  // sets the value of one of the names
};
struct KeyListField {
  std::vector<std::string>* value;  // names of other keys
};
struct RatesField {
  std::map<uint64_t, double>* value;  // YAML: a mapping of steps to learning rates
};
using FieldTarget = std::variant<std::string*, int64_t*, uint64_t*, double*, bool*, PathField, MixtureField,
                                 ShardSetsField, ChoiceField, KeyListField, RatesField, Recipe*>;

// The accepted range of a number, in the value's unit. `above_minimum` excludes the minimum itself.
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

// Returns all keys in the order of the resolved YAML: keys of one section stand together.
std::span<const Field> config_fields();
const Field* find_field(std::string_view key);

// Sets the field from its node. Throws ExitCode::bad_config with the node's location for a value of the wrong type or
// out of range and for an unknown choice. A recipe that is given by name is looked for as load_recipe() does.
void read_field(const Field& field, const YamlNode& node, const std::string& config_directory, RunConfig& config);

// Returns the value as YAML on one line; a recipe is given by its name.
std::string field_text(const Field& field, const RunConfig& config);
bool same_value(const Field& field, const RunConfig& a, const RunConfig& b);

// Returns the accepted range of a number, such as "1 to 4294967295" or "above 0, up to 10"; it is empty for a field
// that is not a number.
std::string range_text(const Field& field);

}  // namespace nibble
