#include "trainer/config/recipe/recipe_reference.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <vector>

#include "quant/recipe/operand_table.h"
#include "quant/recipe/recipe.h"

namespace nibble {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view before_operands = R"(## Recipes

A recipe says how the operands of the three GEMMs of a linear layer are made, which layers differ, and what changes late in
the run. `recipe: NAME` looks for `NAME.yaml` in the directory of the configuration, in `../recipes` beside it, in
`configs/recipes`, in `$NIBBLE_CONFIG_DIR/recipes` and among the recipes installed with nibble; `path/to/my.yaml` names a
file; a mapping is the recipe itself. `nibble config show` prints the recipe so that it refers to no other file.
[recipes.md](recipes.md) shows what each recipe does and how to write one.

```yaml
name: mine
extends: nvfp4               # optional: read first, a name or a path
forward:                     # Y = X W^T
  x: {format: nvfp4, block: 1x16, scale: four_over_six, round: nearest}
  w: {scale: four_over_six}  # without format: changes these keys of the extended recipe's operand
grad_input: bf16             # dX = dY W: both operands
grad_weight:                 # dW = dY^T X
  dy: {round: stochastic}
high_precision:              # the first rule that applies wins ...
  - {match: "embedding|head", format: bf16}
  - {first_blocks: 1, format: mxfp8_e4m3}
layers:                      # ... then the first of these that applies changes the operands above
  - {match: "*.down.weight", grad_input: {dy: {format: nvfp4, round: stochastic}}}
  - {last_share: 0.15, format: mxfp8_e4m3}
switch: {at: 0.82, gemms: forward, to: bf16}
outliers: {share: 0.1, format: mxfp8_e4m3, from_step: 500, window: 50}
oscillation: {every: 200, window: 50, threshold: 8, from_share: 0.6}
```

| key | values | default | meaning |
|---|---|---|---|
| `name` | letters, digits, `-`, `_` | `unnamed` | Shown in logs and reports; not inherited by `extends`. |
| `summary`, `take` | text | none | One line of what the recipe is, and when to take it, for `nibble recipes`; not inherited. |
| `extends` | name or path | none | A recipe that is read first. It is looked for beside this file, then as described above; at most 8 deep. |
| `forward`, `grad_input`, `grad_weight` | a format, or `x`/`dy` and `w`/`x` | `bf16` | The operands of the three GEMMs. |
| `high_precision` | list of rules | `[]` | Layers whose six operands have one `format`, `bf16` if none is given. |
| `layers` | list of rules | none | Layers with other operands: `forward`, `grad_input`, `grad_weight`, or a `format` for all six. |
| `switch` | mapping | none | From step ceil(`at` * steps) on, `gemms` (`forward`, `backward`, `all`; default `all`) are in format `to` (default `bf16`). |
| `outliers` | mapping | none | Outlier retention in layers with four-bit GEMMs: a `share` (default 0.1, below 0.5) of the input channels, rounded up to a multiple of 32, is multiplied in `format` (`mxfp8_e4m3`, `mxfp8_e5m2`, `fp8_e4m3`, `fp8_e5m2`). These are the channels with the largest norms in the `window` (50) steps from `from_step` (500) on, and they are used after the window. |
| `oscillation` | mapping | none | OsciReset: from step ceil(`from_share` * steps) on (default 0.6), every `every` (200) steps, a window of `window` (50) steps is observed. A weight whose quantised value has moved at least `threshold` (8) times as far as the weight itself is then set to that value. Needs 20 bytes for each element, on the rank that owns it. |

A rule has one condition: `match`, `first_blocks`, `last_blocks` (numbers of blocks) or `last_share` (a share of the
blocks, rounded up). `match` holds globs joined by `|`: one with `*`, `?`, `[a-c]` or `[!a-c]` must match the whole name
of the weight (`blocks.3.mlp.down.weight`), any other is looked for inside it.

With `extends`, an operand with `format` replaces the inherited operand; an operand without it changes only the keys that
it names. `high_precision`, `layers`, `switch`, `outliers` and `oscillation` replace those of the extended recipe. `key: ~`
restores the default of a key. Contradictions are looked for when everything has been read.

An operand is a format, which means `{format: ...}`, or a mapping:

)";

constexpr std::string_view after_operands =
    R"(Both operands of a GEMM need the same `rotate`, `rotations` and `signs`, because otherwise the rotation would not cancel.
The axis that a GEMM sums over must be a multiple of the block, of `rotate`, and of 128 with `outer: 1x128` or
`correction: per_128`: features in for `forward`, features out for `grad_input`, tokens of a micro-batch for `grad_weight`.
)";

std::string values_column(std::span<const OperandValue> values) {
  std::vector<std::string_view> names;
  for (const OperandValue& value : values) names.push_back(value.name);
  return fmt::format("`{}`", fmt::join(names, "`, `"));
}

std::string key_row(const OperandKey& key) {
  const std::string values =
      key.values.empty() ? fmt::format("{} to {}{}{}", key.smallest, key.largest, key.unit.empty() ? "" : " ", key.unit)
                         : values_column(key.values);
  return fmt::format("| `{}` | {} | {} | {} |\n", key.key, values, key.default_text, key.doc);
}

std::string value_rows(std::string_view key, std::span<const OperandValue> values) {
  std::string text;
  for (const OperandValue& value : values) text += fmt::format("| `{}: {}` | {} |\n", key, value.name, value.doc);
  return text;
}

// A value as YAML and JSON have it: 128, not "128".
Json scalar(std::string_view name) {
  const bool is_number = name.find_first_not_of("0123456789") == std::string_view::npos;
  return is_number ? Json(std::stoi(std::string(name))) : Json(name);
}

Json one_of(std::span<const OperandValue> values) {
  Json choices = Json::array();
  for (const OperandValue& value : values)
    choices.push_back({{"const", scalar(value.name)}, {"description", value.doc}});
  return {{"oneOf", choices}};
}

Json nullable(const Json& schema) {
  return {{"anyOf", {schema, {{"type", "null"}}}}};
}

Json object(const Json& properties) {
  return {{"type", "object"}, {"properties", properties}, {"additionalProperties", false}};
}

Json reference(std::string_view name) {
  return {{"$ref", fmt::format("#/$defs/{}", name)}};
}

Json key_schema(const OperandKey& key) {
  Json value;
  if (!key.values.empty()) {
    value = one_of(key.values);
  } else {
    const Json number = {
        {"type", key.is_whole ? "integer" : "number"}, {"minimum", key.smallest}, {"maximum", key.largest}};
    value = key.smallest > 0 ? Json{{"anyOf", {number, {{"const", 0}}}}} : number;
  }
  Json schema = nullable(value);
  schema["description"] = key.doc;
  return schema;
}

// Returns whether some operand of this format can have what `change` sets.
template <class Change>
bool is_possible(Format format, const Change& change) {
  for (const Rounding round : all_values<Rounding>()) {
    for (const int rotate : {0, 128}) {
      for (const Signs signs : {Signs::fixed, Signs::step}) {
        OperandSpec spec = plain_operand(format);
        spec.round = round;
        spec.rotate = rotate;
        spec.signs = signs;
        change(spec);
        if (!find_fault(spec)) return true;
      }
    }
  }
  return false;
}

// Returns the schema of the value of a key where the format is known, or `false` if the key has no use there.
Json key_schema(const OperandKey& key, Format format) {
  if (key.values.empty()) {
    const bool is_known = is_possible(format, [&](OperandSpec& spec) { key.set_number(key.largest, spec); });
    return is_known ? Json(true) : Json(false);
  }
  Json names = Json::array();
  for (const std::string_view name : values_of(key, format)) {
    if (is_possible(format, [&](OperandSpec& spec) { key.choose(name, spec); })) names.push_back(scalar(name));
  }
  names.push_back(nullptr);
  return {{"enum", names}};
}

Json operand_schema() {
  Json properties = {{"format", reference("format")}};
  for (const OperandKey& key : operand_keys()) properties[std::string(key.key)] = key_schema(key);
  Json mapping = object(properties);
  for (const Format format : all_values<Format>()) {
    Json known;
    for (const OperandKey& key : operand_keys()) known[std::string(key.key)] = key_schema(key, format);
    mapping["allOf"].push_back(
        {{"if", {{"properties", {{"format", {{"const", name_of(format)}}}}}, {"required", {"format"}}}},
         {"then", {{"properties", known}}}});
  }
  return {{"anyOf", {reference("format"), mapping}}};
}

Json gemm_schemas() {
  Json gemms;
  for (const OperandSlot& slot : operand_slots) {
    gemms[std::string(slot.gemm())]["properties"][std::string(slot.operand())] = reference("operand");
  }
  for (auto& [name, gemm] : gemms.items()) {
    gemm = nullable({{"anyOf", {reference("format"), object(gemm["properties"])}}});
  }
  return gemms;
}

Json share(double largest) {
  return {{"type", "number"}, {"exclusiveMinimum", 0}, {"maximum", largest}};
}

Json whole_number(int smallest) {
  return {{"type", "integer"}, {"minimum", smallest}};
}

// A list of rules, each with one condition and these properties.
Json rules_schema(Json properties) {
  const Json conditions = {{"match", {{"type", "string"}, {"minLength", 1}, {"maxLength", 200}}},
                           {"first_blocks", whole_number(1)},
                           {"last_blocks", whole_number(1)},
                           {"last_share", share(1)}};
  Json one;
  for (const auto& [name, condition] : conditions.items()) {
    properties[name] = condition;
    one.push_back({{"required", {name}}});
  }
  Json rule = object(properties);
  rule["oneOf"] = one;
  return nullable({{"type", "array"}, {"items", rule}});
}

Json eight_bit_formats() {
  Json names = Json::array();
  for (const Format format : all_values<Format>()) {
    if (traits_of(format).code_bits == 8) names.push_back(name_of(format));
  }
  return {{"enum", names}};
}

}  // namespace

std::string recipe_reference() {
  std::string text(before_operands);
  text += "| key | values | default | meaning |\n|---|---|---|---|\n";
  text += fmt::format("| `format` | {} | `bf16` | How the operand is stored. |\n", values_column(operand_formats()));
  for (const OperandKey& key : operand_keys()) text += key_row(key);
  text += "\nThe values:\n\n| value | meaning |\n|---|---|\n" + value_rows("format", operand_formats());
  for (const OperandKey& key : operand_keys()) text += value_rows(key.key, key.values);
  return text + "\n" + std::string(after_operands);
}

nlohmann::ordered_json recipe_schema_definitions() {
  Json rule_gemms = gemm_schemas();
  rule_gemms["format"] = reference("format");
  Json recipe = {{"name", {{"type", "string"}, {"pattern", "^[A-Za-z][A-Za-z0-9_-]{0,63}$"}}},
                 {"summary", {{"type", "string"}}},
                 {"take", {{"type", "string"}}},
                 {"extends", nullable({{"type", "string"}})}};
  recipe.update(gemm_schemas());
  recipe["high_precision"] = rules_schema({{"format", reference("format")}});
  recipe["layers"] = rules_schema(rule_gemms);
  Json late_switch =
      object({{"at", share(1)}, {"gemms", {{"enum", all_names<SwitchedGemms>()}}}, {"to", reference("format")}});
  late_switch["required"] = {"at"};
  recipe["switch"] = nullable(late_switch);
  recipe["outliers"] =
      nullable(object({{"share", {{"type", "number"}, {"exclusiveMinimum", 0}, {"exclusiveMaximum", 0.5}}},
                       {"format", eight_bit_formats()},
                       {"from_step", whole_number(0)},
                       {"window", whole_number(1)}}));
  recipe["oscillation"] = nullable(object({{"every", whole_number(1)},
                                           {"window", whole_number(1)},
                                           {"threshold", {{"type", "number"}, {"minimum", 1}, {"maximum", 1e6}}},
                                           {"from_share", share(1)}}));
  return {{"format", one_of(operand_formats())}, {"operand", operand_schema()}, {"recipe", object(recipe)}};
}

std::string recipe_schema() {
  const Json root = {{"$schema", "https://json-schema.org/draft/2020-12/schema"},
                     {"title", "nibble recipe"},
                     {"$ref", "#/$defs/recipe"},
                     {"$defs", recipe_schema_definitions()}};
  return root.dump(2) + "\n";
}

}  // namespace nibble
