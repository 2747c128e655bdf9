// A recipe as plain data: how the three GEMMs of a linear layer are quantised, which layers differ, and what changes
// late in the run. The trainer reads it from YAML (configs/recipes/); adding a recipe needs no C++.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "quant/recipe/operand_spec.h"

namespace nibble {

// Y = X W^T, dX = dY W, dW = dY^T X.
struct LinearRecipe {
  OperandSpec forward_x, forward_w;           // inner axis: features in
  OperandSpec grad_input_dy, grad_input_w;    // inner axis: features out
  OperandSpec grad_weight_dy, grad_weight_x;  // inner axis: tokens
  friend bool operator==(const LinearRecipe&, const LinearRecipe&) = default;
};

// Returns an operand in this format as its users commonly make it, rounded to nearest: mxfp8 with scale amax_up
// (arXiv:2506.08027), all others with scale amax.
OperandSpec plain_operand(Format format);
// Returns a recipe of six plain_operand()s: one format everywhere, for gradients too.
LinearRecipe plain_recipe(Format format);

// The layers that a rule is for, by name or by the position of the block in the model. Exactly one condition is set.
struct LayerCondition {
  std::string match = {};  // globs (quant/recipe/glob.h) on the weight's name: "embedding|head|blocks.*.down.weight"
  int first_blocks = 0;    // blocks 0 .. first_blocks-1
  int last_blocks = 0;     // the last so many blocks
  double last_share = 0;   // the last ceil(share * blocks) blocks
};

// The locations in a file where the six operands were written, for messages: "nibble.yaml:9:3", in the order of
// LinearRecipe's members; empty for an operand that does not come from a file.
using OperandLocations = std::array<std::string, 6>;

struct HighPrecisionRule {
  LayerCondition layers = {};
  Format format = Format::bf16;
  std::string location = {};
};

// A rule that gives some layers a linear recipe of their own.
struct LayerRule {
  LayerCondition layers = {};
  LinearRecipe linear = {};
  OperandLocations locations = {};
};

enum class SwitchedGemms : uint8_t { forward, backward, all };
constexpr auto enum_names(SwitchedGemms) {
  return std::to_array<EnumName<SwitchedGemms>>(
      {{SwitchedGemms::forward, "forward"}, {SwitchedGemms::backward, "backward"}, {SwitchedGemms::all, "all"}});
}

// From optimizer step ceil(at * steps) of the run on, these GEMMs use another format.
struct LateSwitch {
  double at = 1;
  SwitchedGemms gemms = SwitchedGemms::all;
  Format to = Format::bf16;
};

// Outlier retention (model/layers/outlier_channels.h). In every layer whose GEMMs take four-bit operands, the input
// channels of the largest squared norms are kept in `format` from step from_step + window on. Their number is `share`
// of all input channels; the norms are summed over the micro-batches of steps from_step (counted from 0) to from_step +
// window - 1.
struct OutlierRule {
  double share = 0.1;                  // below 1/2
  Format format = Format::mxfp8_e4m3;  // 8 bits
  int from_step = 500;
  int window = 50;
  friend bool operator==(const OutlierRule&, const OutlierRule&) = default;
};

// OsciReset (optim/oscillation.h): windows of `window` steps, one every `every`, from step ceil(from_share * steps) of
// the run on.
struct OscillationRule {
  int every = 200;
  int window = 50;
  double threshold = 8;
  double from_share = 0.6;
  friend bool operator==(const OscillationRule&, const OscillationRule&) = default;
};

struct Recipe {
  std::string name = {};
  LinearRecipe linear = {};
  OperandLocations locations = {};
  std::vector<HighPrecisionRule> high_precision = {};  // the first rule that applies wins ...
  std::vector<LayerRule> layers = {};                  // ... then the first of these
  std::optional<LateSwitch> late_switch = {};
  std::optional<OutlierRule> outliers = {};
  std::optional<OscillationRule> oscillation = {};  // forward weights are rounded to nearest, without rotation
};

// Returns the recipe of a linear layer. block is -1 for a layer outside the blocks (the head). Throws bad_config for
// rules that name no layers, or name them in two ways.
LinearRecipe resolve(const Recipe& recipe, std::string_view parameter_name, int block, int blocks);

// Returns the locations where resolve()'s result was written.
OperandLocations resolve_locations(const Recipe& recipe, std::string_view parameter_name, int block, int blocks);

// Returns ceil(share * count), for shares that are written in decimals: 0.15 of 20 is 3, not 4.
int64_t count_of_share(double share, int64_t count);
// Returns the first step (counted from 0) after a share of the run.
uint64_t step_of_share(double share, uint64_t steps);
// Returns the first step (counted from 0) that runs with the switched recipe; `steps` when there is no switch.
uint64_t switch_step(const Recipe& recipe, uint64_t steps);
// Returns the recipe with the switch carried out, in `layers` too. A backward operand made from a saved forward operand
// that is no longer quantised is made from the original. high_precision stays as it is.
Recipe switched(const Recipe& recipe);
// Returns the recipe of optimizer step `step` (counted from 0) of `steps`.
Recipe recipe_at(const Recipe& recipe, uint64_t step, uint64_t steps);

}  // namespace nibble
