#include "quant/recipe/recipe.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "dist/base/error.h"
#include "quant/recipe/glob.h"

namespace nibble {
namespace {

void check_condition(const Recipe& recipe, const LayerCondition& condition, std::string_view list) {
  const auto refuse = [&](const std::string& what, std::string remedy) {
    throw Error(ExitCode::bad_config, fmt::format("recipe {}: {}", recipe.name, what), std::move(remedy));
  };
  const int conditions = (condition.match.empty() ? 0 : 1) + (condition.first_blocks != 0 ? 1 : 0) +
                         (condition.last_blocks != 0 ? 1 : 0) + (condition.last_share != 0 ? 1 : 0);
  if (conditions != 1) {
    refuse(fmt::format("a rule of {} has {} conditions", list, conditions),
           "give each rule exactly one of match, first_blocks, last_blocks, last_share");
  }
  const bool share_in_range = condition.last_share >= 0 && condition.last_share <= 1;
  if (condition.first_blocks < 0 || condition.last_blocks < 0 || !share_in_range) {
    refuse(fmt::format("a rule of {} counts a negative number of blocks, or a share outside 0..1", list),
           "give first_blocks and last_blocks a positive number, last_share one between 0 and 1");
  }
  const std::string mistake = glob_mistake(condition.match);
  if (!condition.match.empty() && !mistake.empty()) {
    refuse(fmt::format("match \"{}\" of {} {}", condition.match, list, mistake),
           "write globs joined by |, such as \"embedding|head|blocks.*.down.weight\"");
  }
}

bool applies(const LayerCondition& condition, std::string_view name, int block, int blocks) {
  if (!condition.match.empty()) return glob_matches(condition.match, name);
  if (block < 0) return false;
  if (condition.first_blocks > 0) return block < condition.first_blocks;
  if (condition.last_blocks > 0) return block >= blocks - condition.last_blocks;
  return block >= blocks - count_of_share(condition.last_share, blocks);
}

LinearRecipe switched_linear(const LinearRecipe& linear, const LateSwitch& late_switch) {
  LinearRecipe result = linear;
  const OperandSpec plain = plain_operand(late_switch.to);
  if (late_switch.gemms != SwitchedGemms::backward) result.forward_x = result.forward_w = plain;
  if (late_switch.gemms != SwitchedGemms::forward) {
    result.grad_input_dy = result.grad_input_w = result.grad_weight_dy = result.grad_weight_x = plain;
  }
  if (!is_quantized(result.forward_w.format)) result.grad_input_w.from = Source::original;
  if (!is_quantized(result.forward_x.format)) result.grad_weight_x.from = Source::original;
  return result;
}

// The rule that applies to a layer. If both are null, the recipe's own operands apply.
struct AppliedRule {
  const HighPrecisionRule* high_precision = nullptr;
  const LayerRule* layers = nullptr;
};
AppliedRule applied_rule(const Recipe& recipe, std::string_view parameter_name, int block, int blocks) {
  NIBBLE_CHECK(block >= -1 && block < std::max(blocks, 1), "block of a layer");
  for (const HighPrecisionRule& rule : recipe.high_precision) check_condition(recipe, rule.layers, "high_precision");
  for (const LayerRule& rule : recipe.layers) check_condition(recipe, rule.layers, "layers");
  for (const HighPrecisionRule& rule : recipe.high_precision) {
    if (applies(rule.layers, parameter_name, block, blocks)) return {.high_precision = &rule, .layers = nullptr};
  }
  for (const LayerRule& rule : recipe.layers) {
    if (applies(rule.layers, parameter_name, block, blocks)) return {.high_precision = nullptr, .layers = &rule};
  }
  return {};
}

}  // namespace

OperandSpec plain_operand(Format format) {
  const FormatTraits traits = traits_of(format);
  const bool mxfp8 = traits.block_scale == ScaleCode::e8m0 && traits.code_bits == 8;
  return {.format = format, .scale = mxfp8 ? ScaleRule::amax_up : ScaleRule::amax};
}

LinearRecipe plain_recipe(Format format) {
  const OperandSpec spec = plain_operand(format);
  return LinearRecipe{spec, spec, spec, spec, spec, spec};
}

LinearRecipe resolve(const Recipe& recipe, std::string_view parameter_name, int block, int blocks) {
  const AppliedRule rule = applied_rule(recipe, parameter_name, block, blocks);
  if (rule.high_precision != nullptr) return plain_recipe(rule.high_precision->format);
  return rule.layers != nullptr ? rule.layers->linear : recipe.linear;
}

OperandLocations resolve_locations(const Recipe& recipe, std::string_view parameter_name, int block, int blocks) {
  const AppliedRule rule = applied_rule(recipe, parameter_name, block, blocks);
  if (rule.high_precision == nullptr) return rule.layers != nullptr ? rule.layers->locations : recipe.locations;
  OperandLocations locations;
  locations.fill(rule.high_precision->location);
  return locations;
}

int64_t count_of_share(double share, int64_t count) {
  const double exact = share * static_cast<double>(count);
  return static_cast<int64_t>(std::ceil(exact - 1e-12 * exact));
}

uint64_t step_of_share(double share, uint64_t steps) {
  return static_cast<uint64_t>(count_of_share(std::clamp(share, 0.0, 1.0), static_cast<int64_t>(steps)));
}

uint64_t switch_step(const Recipe& recipe, uint64_t steps) {
  return recipe.late_switch ? step_of_share(recipe.late_switch->at, steps) : steps;
}

Recipe switched(const Recipe& recipe) {
  if (!recipe.late_switch) return recipe;
  Recipe result = recipe;
  result.linear = switched_linear(recipe.linear, *recipe.late_switch);
  for (LayerRule& rule : result.layers) rule.linear = switched_linear(rule.linear, *recipe.late_switch);
  result.late_switch.reset();
  return result;
}

Recipe recipe_at(const Recipe& recipe, uint64_t step, uint64_t steps) {
  return step < switch_step(recipe, steps) ? recipe : switched(recipe);
}

}  // namespace nibble
