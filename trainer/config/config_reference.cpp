// docs/configuration.md and the JSON Schema of the configuration: both made from the table of keys.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "dist/base/error.h"
#include "trainer/config/field_table.h"

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
* Anchors, aliases, tags and merge keys of YAML are refused. `nibble config schema` prints a JSON Schema for editors.

The column *resume* says whether a resumed run may change a key. A `frozen` key may never change, because the checkpoint
would not fit. A `numeric` key changes the numbers of the run, and may change only if `resume.allow` names it. A `free` key
may always change.

)";

constexpr std::string_view recipe_section = R"(## Recipes

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

| key | values | default | meaning |
|---|---|---|---|
| `format` | `bf16`, `nvfp4`, `mxfp4`, `mxfp8_e4m3`, `mxfp8_e5m2`, `fp8_e4m3`, `fp8_e5m2`, `fp32` | `bf16` | How the operand is stored. |
| `block` | nvfp4: `1x16`, `16x16`; mxfp4, mxfp8: `1x32` | `1x16`, `1x32` | Elements that share a scale; with `16x16` a matrix and its transpose hold the same values. |
| `scale` | `amax`, `amax_up`, `four_over_six`, `four_over_six_mae`, `four_over_six_abs_max`, `search`, `rms` | `amax`; mxfp8: `amax_up` | `amax`: a block's largest magnitude becomes the format's largest (mxfp: the power of two below, which clips). `amax_up`: mxfp, the power of two above. `four_over_six`: nvfp4, the maximum at 6 or at 4, by the lower squared, absolute or largest error. `search`: nvfp4, the E4M3 scale of least squared error. `rms`: nvfp4 and mxfp4, from the root mean square, which clips. |
| `round` | `nearest`, `stochastic`, `stochastic_published`, `ms_eden` | `nearest` | `stochastic`: nvfp4 and mxfp4, unbiased. `stochastic_published`: nvfp4, NVIDIA's variant without a guard, biased. `ms_eden`: nvfp4, elements to nearest and an unbiased correction in the block scales; needs `rotate` with drawn `signs`. |
| `correction` | `post_hoc`, `post_hoc_published`, `per_16`, `per_128`, `per_128_published` | `post_hoc` | `ms_eden` only: 16 or 128 elements share a correction, with the tensor's scale chosen first; or `post_hoc`: the tensor's scale is chosen last. `_published`: with the arithmetic of the paper's code. |
| `range` | 1 to 8 | the rule's | nvfp4: the value on the E2M1 grid to which a block's maximum is scaled. |
| `ceiling` | 1 to 448 | the rule's | nvfp4: the E4M3 scale of the block with the tensor's maximum. |
| `outer` | `tensor`, `1x128` | `tensor` | nvfp4: the elements that share one FP32 scale. |
| `history` | 0 to 1024 steps | `0` | fp8: the scale comes from the largest magnitude of so many previous steps; 0 = from the tensor itself. |
| `rotate` | `0`, `16`, `32`, `64`, `128` | `0` | Points of the Hadamard rotation along the axis that the GEMM sums over. |
| `rotations` | `1`, `2` | `1` | Number of rotations; each has its own signs. |
| `signs` | `fixed`, `step`, `micro_batch` | `fixed` | Signs of the rotation: one vector for the whole run, or drawn for each step or micro-batch. `forward` has no `micro_batch`, because its weight is quantised once in a step. |
| `from` | `original`, `saved` | `original` | `grad_input.w` and `grad_weight.x`: made from the high-precision tensor, or from the values of the quantised forward operand. |

Both operands of a GEMM need the same `rotate`, `rotations` and `signs`, because otherwise the rotation would not cancel.
The axis that a GEMM sums over must be a multiple of the block, of `rotate`, and of 128 with `outer: 1x128` or
`correction: per_128`: features in for `forward`, features out for `grad_input`, tokens of a micro-batch for `grad_weight`.
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
  Json operator()(const ChoiceField& choice) const { return {{"enum", choice.names}}; }
  Json operator()(const Recipe*) const { return {{"type", {"string", "object"}}}; }
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
  return text + "\n" + std::string(recipe_section);
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
  return root.dump(2) + "\n";
}

}  // namespace nibble
