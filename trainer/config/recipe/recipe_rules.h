// The parts of a recipe that say to which layers and from which step on something applies: high_precision, layers,
// switch, outliers and oscillation.
#pragma once

#include <string>
#include <vector>

#include "quant/recipe/recipe.h"
#include "trainer/config/recipe/recipe_operand.h"

namespace nibble {

// All functions that parse throw ExitCode::bad_config with the location.
std::vector<HighPrecisionRule> parse_high_precision(const YamlNode& list);
// `base` holds the recipe's own operands; the keys of a rule change a copy of them.
std::vector<LayerRule> parse_layers(const YamlNode& list, const WrittenLinear& base);
LateSwitch parse_switch(const YamlNode& node);
OutlierRule parse_outliers(const YamlNode& node);
// `recipe` must be complete except for this rule, which is allowed only if the forward weights are rounded to nearest
// and not rotated.
OscillationRule parse_oscillation(const YamlNode& node, const Recipe& recipe);

// The functions that write return YAML on one line, for example "{match: head, format: bf16}".
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
