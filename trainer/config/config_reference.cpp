// docs/configuration.md and the JSON Schema of the configuration: both made from the table of keys.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "dist/base/error.h"
#include "trainer/config/field_table.h"
#include "trainer/config/recipe/recipe_reference.h"

namespace nibble {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view introduction =
    R"(<!-- Made by `nibble config reference`; a test compares. Change trainer/config/field_table.cpp instead. -->
# Configuration

A run is described by one YAML file. Every key is listed here; an unknown key, a duplicate, or a value out of range ends
the program with exit code 78 and the file, line and column of the mistake.

* `nibble config check FILE` checks a file, `nibble config show FILE` prints it with every default filled in.
* `--set section.key=value` overrides the file; it may be given any number of times. A value that starts with `[`, `{` or
  a quote is read as YAML, any other is taken literally: `--set train.steps=500 --set 'data.train=[a.bin, b.bin]'`.
* Numbers may be written `1_000_000`, `1e6`, `1M` (`k`, `M`, `G`, `B` are powers of ten) or `32Ki` (`Ki`, `Mi`, `Gi` are
  powers of two). Truth values are only `true` and `false`.
* Relative paths start at the directory in which nibble was started; `~/`, `$NAME` and `${NAME}` in paths are replaced
  ([paths](operations.md#paths)). A run directory keeps the whole configuration, with absolute paths and the recipe written
  out, in `config.yaml`.
* Anchors, aliases, tags and merge keys of YAML are refused. `nibble config schema` prints a JSON Schema for editors, and
  `nibble config schema --recipe` that of a recipe in a file of its own.

The column *resume* says whether a resumed run may change a key. A `frozen` key may never change, because the checkpoint
would not fit. A `numeric` key changes the numbers of the run, and may change only if `resume.allow` names it. A `free` key
may always change.

)";

struct TypeOf {
  std::string operator()(const std::string*) const { return "text"; }
  std::string operator()(const int64_t*) const { return "integer"; }
  std::string operator()(const uint64_t*) const { return "integer"; }
  std::string operator()(const double*) const { return "number"; }
  std::string operator()(const bool*) const { return "`true`, `false`"; }
  std::string operator()(const PathField&) const { return "path"; }
  std::string operator()(const MixtureField&) const { return "pattern, list, or list of weighted parts"; }
  std::string operator()(const ShardSetsField&) const { return "pattern, list, or mapping of names to them"; }
  std::string operator()(const KeyListField&) const { return "list of keys"; }
  std::string operator()(const RatesField&) const { return "mapping of steps to rates"; }
  std::string operator()(const ChoiceField& choice) const {
    return fmt::format("`{}`", fmt::join(choice.names, "`, `"));
  }
  std::string operator()(const Recipe*) const { return "name, path or mapping"; }
};

std::string reference_row(const Field& field, RunConfig& defaults) {
  std::string type = std::visit(TypeOf(), field.target(defaults));
  if (field.range.maximum != 0) type += ", " + range_text(field);
  if (!field.unit.empty()) type += fmt::format(" {}", field.unit);
  const std::string value = field.required ? "required" : fmt::format("`{}`", field_text(field, defaults));
  return fmt::format("| `{}` | {} | {} | {} | {} |\n", field.key, type, value, name_of(field.resume),
                     field.documentation);
}

const Json& suffixed_number() {
  static const Json schema = {{"type", "string"},
                              {"pattern", "^[0-9][0-9_]*(\\.[0-9]+)?([eE][-+]?[0-9]+)?([kMGB]|[KMG]i)?$"}};
  return schema;
}

Json number_schema(const Field& field, std::string_view type) {
  Json number = {{"type", type}};
  const FieldRange& range = field.range;
  if (range.maximum != 0) {
    number[range.above_minimum ? "exclusiveMinimum" : "minimum"] = range.minimum;
    number["maximum"] = range.maximum;
  }
  return {{"anyOf", {number, suffixed_number()}}};
}

Json string_list_schema() {
  return {{"type", "array"}, {"items", {{"type", "string"}}}};
}

Json string_or_list_schema() {
  return {{"anyOf", {{{"type", "string"}}, string_list_schema()}}};
}

Json object_schema() {
  return {
      {"type", "object"}, {"additionalProperties", false}, {"properties", Json::object()}, {"required", Json::array()}};
}

struct SchemaOf {
  const Field& field;
  Json operator()(const std::string*) const { return {{"type", "string"}}; }
  Json operator()(const int64_t*) const { return number_schema(field, "integer"); }
  Json operator()(const uint64_t*) const { return number_schema(field, "integer"); }
  Json operator()(const double*) const { return number_schema(field, "number"); }
  Json operator()(const bool*) const { return {{"type", "boolean"}}; }
  Json operator()(const PathField&) const { return {{"type", "string"}}; }
  Json operator()(const MixtureField&) const {
    Json part = object_schema();
    part["properties"] = {{"name", {{"type", "string"}}},
                          {"shards", string_or_list_schema()},
                          {"weight", {{"type", "number"}, {"exclusiveMinimum", 0}, {"maximum", 1e9}}}};
    part["required"] = {"shards", "weight"};
    const Json parts = {{"type", "array"}, {"items", std::move(part)}, {"minItems", 1}};
    return {{"anyOf", {{{"type", "string"}}, string_list_schema(), parts}}};
  }
  Json operator()(const ShardSetsField&) const {
    const Json sets = {{"type", "object"}, {"additionalProperties", string_or_list_schema()}};
    return {{"anyOf", {{{"type", "string"}}, string_list_schema(), sets}}};
  }
  Json operator()(const KeyListField&) const { return string_list_schema(); }
  Json operator()(const RatesField&) const {
    return {{"type", "object"}, {"additionalProperties", number_schema(field, "number")}};
  }
  Json operator()(const ChoiceField& choice) const { return {{"enum", choice.names}}; }
  Json operator()(const Recipe*) const { return {{"anyOf", {{{"type", "string"}}, {{"$ref", "#/$defs/recipe"}}}}}; }
};

Json default_of(const Field& field, RunConfig& defaults) {
  return std::visit(
      [&](const auto& target) -> Json {
        using Target = std::decay_t<decltype(target)>;
        if constexpr (std::is_same_v<Target, Recipe*>) {
          return nullptr;
        } else if constexpr (std::is_same_v<Target, ChoiceField>) {
          return target.name();
        } else if constexpr (std::is_same_v<Target, ShardSetsField> || std::is_same_v<Target, MixtureField>) {
          return Json::array();
        } else if constexpr (std::is_same_v<Target, RatesField>) {
          return Json::object();
        } else if constexpr (std::is_pointer_v<Target>) {
          return *target;
        } else {
          return *target.value;
        }
      },
      field.target(defaults));
}

}  // namespace

std::string config_reference() {
  RunConfig defaults;
  std::string text(introduction);
  std::string_view section = "none yet";
  for (const Field& field : config_fields()) {
    const size_t dot = field.key.find('.');
    const std::string_view own = dot == std::string_view::npos ? std::string_view() : field.key.substr(0, dot);
    if (own != section) {
      text += fmt::format("{}## {}\n\n| key | type | default | resume | meaning |\n|---|---|---|---|---|\n",
                          section == "none yet" ? "" : "\n", own.empty() ? "Recipe and device" : own);
    }
    section = own;
    text += reference_row(field, defaults);
  }
  return text + "\n" + recipe_reference();
}

std::string config_schema() {
  RunConfig defaults;
  Json root = {{"$schema", "https://json-schema.org/draft/2020-12/schema"}, {"title", "nibble run configuration"}};
  root.update(object_schema());
  for (const Field& field : config_fields()) {
    const size_t dot = field.key.find('.');
    Json* object = &root;
    std::string name(field.key);
    if (dot != std::string_view::npos) {
      const std::string section(field.key.substr(0, dot));
      name = field.key.substr(dot + 1);
      Json& sections = root["properties"];
      if (!sections.contains(section)) sections[section] = object_schema();
      object = &sections[section];
    }
    Json schema = std::visit(SchemaOf{field}, field.target(defaults));
    schema["description"] = field.documentation;
    if (!field.required) schema["default"] = default_of(field, defaults);
    (*object)["properties"][name] = std::move(schema);
    if (!field.required) continue;
    (*object)["required"].push_back(name);
    const std::string section(field.key.substr(0, dot));
    Json& sections = root["required"];
    if (object != &root && std::find(sections.begin(), sections.end(), section) == sections.end()) {
      sections.push_back(section);
    }
  }
  // A preset, or the model that a run starts from, gives the keys of a model.
  Json& model = root["properties"]["model"];
  const Json all = {{"required", std::move(model["required"])}};
  model.erase("required");
  model["anyOf"] = {{{"required", {"preset"}}}, {{"required", {"from"}}}, all};
  root["$defs"] = recipe_schema_definitions();
  return root.dump(2) + "\n";
}

}  // namespace nibble
