#include "trainer/config/recipe/recipe_rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "dist/base/text.h"
#include "quant/recipe/glob.h"

namespace nibble {
namespace {

constexpr std::array<std::string_view, 4> condition_keys = {"match", "first_blocks", "last_blocks", "last_share"};

constexpr std::array switched_gemms = {SwitchedGemms::forward, SwitchedGemms::backward, SwitchedGemms::all};

int parse_steps(const YamlEntry& entry, uint64_t least) {
  constexpr uint64_t largest = 1'000'000'000;
  const auto value = parse_integer(scalar_text(entry));
  if (!value || value->negative || value->magnitude < least || value->magnitude > largest) {
    refuse_config(entry.value.location, fmt::format("{} is not a number of steps", shown(entry.value.text)),
                  fmt::format("use a whole number from {} to {}", least, largest));
  }
  return static_cast<int>(value->magnitude);
}

int parse_block_count(const YamlEntry& entry) {
  const auto value = parse_integer(scalar_text(entry));
  if (!value || value->negative || value->magnitude < 1 || value->magnitude > 100'000) {
    refuse_config(entry.value.location, fmt::format("{} is not a number of blocks", shown(entry.value.text)),
                  "use a whole number from 1 to 100000, or remove the rule");
  }
  return static_cast<int>(value->magnitude);
}

double parse_share(const YamlEntry& entry, std::string_view whole) {
  const auto value = parse_real(scalar_text(entry));
  if (!value || !(*value > 0) || *value > 1) {
    refuse_config(entry.value.location, fmt::format("{} is not a share of the {}", shown(entry.value.text), whole),
                  "use a number above 0 and up to 1, for example 0.15");
  }
  return *value;
}

std::string parse_match(const YamlEntry& entry) {
  const std::string& text = scalar_text(entry);
  const std::string remedy =
      "use globs on parameter names, joined by |, for example \"embedding|head|blocks.*.down.weight\"";
  if (text.empty() || text.size() > 200) {
    refuse_config(entry.value.location, "\"match\" must have 1 to 200 characters", remedy);
  }
  const std::string mistake = glob_mistake(text);
  if (!mistake.empty()) refuse_config(entry.value.location, fmt::format("{} {}", shown(text), mistake), remedy);
  return text;
}

bool is_condition(const YamlEntry& entry) {
  return std::find(condition_keys.begin(), condition_keys.end(), entry.key) != condition_keys.end();
}

std::vector<std::string_view> eight_bit_formats() {
  return {name_of(Format::mxfp8_e4m3), name_of(Format::mxfp8_e5m2), name_of(Format::fp8_e4m3),
          name_of(Format::fp8_e5m2)};
}

double parse_threshold(const YamlEntry& entry) {
  const auto value = parse_real(scalar_text(entry));
  if (!value || !(*value >= 1) || *value > 1e6) {
    refuse_config(entry.value.location, fmt::format("{} is not a threshold", shown(entry.value.text)),
                  "use a number from 1 to 1e6: how many times further than itself the quantised weight has moved");
  }
  return *value;
}

LayerCondition parse_condition(const YamlNode& rule, std::string_view list) {
  check_map(rule, fmt::format("a rule of {}", list));
  const auto conditions = std::count_if(rule.entries.begin(), rule.entries.end(), is_condition);
  if (conditions != 1) {
    refuse_config(rule.location, fmt::format("a rule of {} with {} conditions", list, conditions),
                  "give each rule exactly one of match, first_blocks, last_blocks, last_share");
  }
  const YamlEntry& entry = *std::find_if(rule.entries.begin(), rule.entries.end(), is_condition);
  if (entry.key == "match") return {.match = parse_match(entry)};
  if (entry.key == "first_blocks") return {.first_blocks = parse_block_count(entry)};
  if (entry.key == "last_blocks") return {.last_blocks = parse_block_count(entry)};
  return {.last_share = parse_share(entry, "blocks")};
}

void check_list(const YamlNode& node, std::string_view key) {
  if (node.kind == YamlNode::Kind::sequence) return;
  refuse_config(node.location, fmt::format("\"{}\" must be a list", key), "write one `- {match: ...}` a rule");
}

[[noreturn]] void refuse_rule_key(const YamlEntry& entry, const std::string& prefix,
                                  std::initializer_list<std::string_view> others) {
  std::vector<std::string_view> keys(condition_keys.begin(), condition_keys.end());
  keys.insert(keys.end(), others);
  refuse_key(entry, prefix, keys);
}

}  // namespace

std::vector<HighPrecisionRule> parse_high_precision(const YamlNode& list) {
  check_list(list, "high_precision");
  std::vector<HighPrecisionRule> rules;
  for (const YamlNode& item : list.items) {
    check_map(item, "a rule of high_precision");
    HighPrecisionRule rule;
    for (const YamlEntry& entry : item.entries) {
      if (entry.key == "format") {
        rule.format = parse_format(entry);
      } else if (!is_condition(entry)) {
        refuse_rule_key(entry, "high_precision.", {"format"});
      }
    }
    rule.layers = parse_condition(item, "high_precision");
    rule.location = item.location.text();
    rules.push_back(std::move(rule));
  }
  return rules;
}

std::vector<LayerRule> parse_layers(const YamlNode& list, const WrittenLinear& base) {
  check_list(list, "layers");
  std::vector<LayerRule> rules;
  for (const YamlNode& item : list.items) {
    check_map(item, "a rule of layers");
    WrittenLinear linear = base;
    if (const YamlEntry* format = item.find("format")) write_all_operands(*format, linear);
    for (const YamlEntry& entry : item.entries) {
      if (is_gemm_key(entry.key)) {
        write_gemm(entry, linear);
      } else if (!is_condition(entry) && entry.key != "format") {
        refuse_rule_key(entry, "layers.", {"format", "forward", "grad_input", "grad_weight"});
      }
    }
    rules.push_back(
        {.layers = parse_condition(item, "layers"), .linear = finished(linear), .locations = locations_of(linear)});
  }
  return rules;
}

LateSwitch parse_switch(const YamlNode& node) {
  check_map(node, "\"switch\"");
  if (node.find("at") == nullptr) {
    refuse_config(node.location, "a switch without \"at\"",
                  "give the share of the run after which it happens: at: 0.82");
  }
  LateSwitch late_switch;
  for (const YamlEntry& entry : node.entries) {
    if (entry.key == "at") {
      late_switch.at = parse_share(entry, "run");
    } else if (entry.key == "gemms") {
      late_switch.gemms = choose(entry, switched_gemms);
    } else if (entry.key == "to") {
      late_switch.to = parse_format(entry);
    } else {
      refuse_key(entry, "switch.", {"at", "gemms", "to"});
    }
  }
  return late_switch;
}

OutlierRule parse_outliers(const YamlNode& node) {
  check_map(node, "\"outliers\"");
  OutlierRule rule;
  for (const YamlEntry& entry : node.entries) {
    if (entry.key == "share") {
      rule.share = parse_share(entry, "channels");
      if (rule.share >= 0.5) {
        refuse_config(entry.value.location, fmt::format("{} of the channels are no outliers", shown(entry.value.text)),
                      "use a share below 0.5");
      }
    } else if (entry.key == "format") {
      rule.format = parse_format(entry);
      if (traits_of(rule.format).code_bits != 8) refuse_value(entry, eight_bit_formats());
    } else if (entry.key == "from_step") {
      rule.from_step = parse_steps(entry, 0);
    } else if (entry.key == "window") {
      rule.window = parse_steps(entry, 1);
    } else {
      refuse_key(entry, "outliers.", {"share", "format", "from_step", "window"});
    }
  }
  return rule;
}

OscillationRule parse_oscillation(const YamlNode& node, const Recipe& recipe) {
  check_map(node, "\"oscillation\"");
  OscillationRule rule;
  for (const YamlEntry& entry : node.entries) {
    if (entry.key == "every") {
      rule.every = parse_steps(entry, 1);
    } else if (entry.key == "window") {
      rule.window = parse_steps(entry, 1);
    } else if (entry.key == "threshold") {
      rule.threshold = parse_threshold(entry);
    } else if (entry.key == "from_share") {
      rule.from_share = parse_share(entry, "run");
    } else {
      refuse_key(entry, "oscillation.", {"every", "window", "threshold", "from_share"});
    }
  }
  if (rule.window >= rule.every) {
    refuse_config(node.location, fmt::format("a window of {} steps every {}", rule.window, rule.every),
                  "set \"every\" to more than \"window\"");
  }
  std::vector<OperandSpec> weights = {recipe.linear.forward_w};
  for (const LayerRule& layers : recipe.layers) weights.push_back(layers.linear.forward_w);
  for (const OperandSpec& weight : weights) {
    if (!is_quantized(weight.format) || (weight.rotate == 0 && !has_rounding_noise(weight))) continue;
    refuse_config(node.location,
                  fmt::format("\"oscillation\" needs to know the values of forward.w, which is {}", describe(weight)),
                  "use round: nearest and rotate: 0 for forward.w, or remove \"oscillation\"");
  }
  return rule;
}

std::string condition_yaml(const LayerCondition& condition) {
  if (!condition.match.empty()) return fmt::format("match: {}", yaml_string(condition.match));
  if (condition.first_blocks > 0) return fmt::format("first_blocks: {}", condition.first_blocks);
  if (condition.last_blocks > 0) return fmt::format("last_blocks: {}", condition.last_blocks);
  return fmt::format("last_share: {}", condition.last_share);
}

std::string high_precision_yaml(const HighPrecisionRule& rule) {
  return fmt::format("{{{}, format: {}}}", condition_yaml(rule.layers), name_of(rule.format));
}

std::string switch_yaml(const LateSwitch& late_switch) {
  return fmt::format("{{at: {}, gemms: {}, to: {}}}", late_switch.at, name_of(late_switch.gemms),
                     name_of(late_switch.to));
}

std::string outliers_yaml(const OutlierRule& rule) {
  return fmt::format("{{share: {}, format: {}, from_step: {}, window: {}}}", rule.share, name_of(rule.format),
                     rule.from_step, rule.window);
}

std::string oscillation_yaml(const OscillationRule& rule) {
  return fmt::format("{{every: {}, window: {}, threshold: {}, from_share: {}}}", rule.every, rule.window,
                     rule.threshold, rule.from_share);
}

}  // namespace nibble
