// The parts of a recipe that say for which layers, and when: high_precision, layers, switch, outliers,
// oscillation.
#pragma once

#include <string>
#include <vector>

#include "quant/recipe/recipe.h"
#include "trainer/config/recipe_operand.h"

namespace nibble {

// All throw ExitCode::bad_config with the place.
std::vector<HighPrecisionRule> parse_high_precision(const YamlNode& list);
// Rules write over `base`, the recipe's own operands.
std::vector<LayerRule> parse_layers(const YamlNode& list, const WrittenLinear& base);
LateSwitch parse_switch(const YamlNode& node);
OutlierRule parse_outliers(const YamlNode& node);
// `recipe` is complete but for this: oscillation is about forward weights that are rounded to nearest, not rotated.
OscillationRule parse_oscillation(const YamlNode& node, const Recipe& recipe);

// "{match: head, format: bf16}"
std::string high_precision_yaml(const HighPrecisionRule& rule);
// "match: head"
std::string condition_yaml(const LayerCondition& condition);
// "{at: 0.82, gemms: forward, to: bf16}"
std::string switch_yaml(const LateSwitch& late_switch);
// "{share: 0.1, format: mxfp8_e4m3, from_step: 500, window: 50}"
std::string outliers_yaml(const OutlierRule& rule);
// "{every: 200, window: 50, threshold: 8, from_share: 0.6}"
std::string oscillation_yaml(const OscillationRule& rule);

}  // namespace nibble
