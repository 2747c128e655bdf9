#include "trainer/recipe_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <regex>
#include <span>
#include <utility>

#include "dist/error.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

template <class Value>
struct Named {
  std::string_view name;
  Value value;
};

constexpr Named<Format> format_names[] = {{"fp32", Format::f32}, {"bf16", Format::bf16}, {"nvfp4", Format::nvfp4}};
constexpr Named<BlockShape> block_names[] = {{"1x16", BlockShape::row}, {"16x16", BlockShape::square}};
constexpr Named<Rounding> rounding_names[] = {{"nearest", Rounding::nearest},
                                              {"stochastic", Rounding::stochastic},
                                              {"stochastic_published", Rounding::stochastic_published}};
constexpr Named<int> rotation_names[] = {{"0", 0}, {"16", 16}};
constexpr Named<Source> source_names[] = {{"original", Source::original}, {"saved", Source::saved}};
constexpr Named<int> scale_names[] = {{"amax", 0}};

template <class Value>
std::string_view name_in(std::span<const Named<Value>> names, Value value) {
  for (const Named<Value>& named : names) {
    if (named.value == value) return named.name;
  }
  return "?";
}

const std::string& scalar_text(const YamlEntry& entry) {
  if (entry.value.kind != YamlNode::Kind::scalar) {
    refuse_config(entry.value.place, fmt::format("{} needs a single value", shown(entry.key)), "write key: value");
  }
  return entry.value.text;
}

template <class Value>
Value choose(const YamlEntry& entry, std::span<const Named<Value>> names) {
  const std::string& text = scalar_text(entry);
  std::vector<std::string_view> words;
  for (const Named<Value>& named : names) {
    if (named.name == text) return named.value;
    words.push_back(named.name);
  }
  const std::string_view meant = nearest_word(text, words);
  refuse_config(entry.value.place,
                fmt::format("{} is not a value of \"{}\"{}", shown(text), entry.key,
                            meant.empty() ? std::string() : fmt::format(" (did you mean \"{}\"?)", meant)),
                fmt::format("use {}", fmt::join(words, ", ")));
}

void check_map(const YamlNode& node, std::string_view what) {
  if (node.kind == YamlNode::Kind::map) return;
  refuse_config(node.place, fmt::format("{} must be a mapping", what), "write `key: value` lines below it");
}

[[noreturn]] void refuse_key(const YamlEntry& entry, const std::string& prefix,
                             const std::vector<std::string_view>& keys) {
  const std::string_view meant = nearest_word(entry.key, keys);
  const std::string hint = meant.empty() ? std::string() : fmt::format(" (did you mean \"{}{}\"?)", prefix, meant);
  refuse_config(entry.place, fmt::format("unknown key {}{}", shown(prefix + entry.key), hint),
                fmt::format("the keys here are {}", fmt::join(keys, ", ")));
}

// One of the six operands: where it stands in the YAML form and in the struct.
struct OperandSlot {
  std::string_view gemm, operand;
  OperandSpec LinearRecipe::*spec;
};
constexpr std::array<OperandSlot, 6> slots = {{{"forward", "x", &LinearRecipe::forward_x},
                                               {"forward", "w", &LinearRecipe::forward_w},
                                               {"grad_input", "dy", &LinearRecipe::grad_input_dy},
                                               {"grad_input", "w", &LinearRecipe::grad_input_w},
                                               {"grad_weight", "dy", &LinearRecipe::grad_weight_dy},
                                               {"grad_weight", "x", &LinearRecipe::grad_weight_x}}};

const YamlPlace& place_of(const YamlNode& map, std::string_view key) {
  const YamlEntry* entry = map.find(key);
  return entry != nullptr ? entry->place : map.place;
}

// Settings that say nothing, or two things at once.
void check_operand(const YamlNode& node, const OperandSlot& slot, const OperandSpec& spec) {
  const auto name = fmt::format("{}.{}", slot.gemm, slot.operand);
  if (spec.format != Format::nvfp4) {
    const auto refuse_setting = [&](std::string_view key) {
      refuse_config(place_of(node, key),
                    fmt::format("{} is {}, which has no \"{}\"", name, name_in<Format>(format_names, spec.format), key),
                    fmt::format("remove \"{}\", or set format: nvfp4", key));
    };
    for (const std::string_view key : {"block", "scale"}) {
      if (node.find(key) != nullptr) refuse_setting(key);
    }
    if (spec.round != Rounding::nearest) refuse_setting("round");
    if (spec.rotate != 0) refuse_setting("rotate");
  }
  if (spec.block == BlockShape::square && spec.rotate != 0) {
    refuse_config(place_of(node, "rotate"), fmt::format("{} is rotated but has 16x16 blocks", name),
                  "a rotation acts along the inner axis only: use block: 1x16, or rotate: 0");
  }
  const bool has_forward = slot.gemm != "forward" && slot.operand != "dy";
  if (spec.from == Source::saved && !has_forward) {
    refuse_config(place_of(node, "from"), fmt::format("{} cannot be made from a saved operand", name),
                  "only grad_input.w and grad_weight.x have a forward operand; use from: original");
  }
}

OperandSpec parse_operand(const YamlEntry& entry, const OperandSlot& slot) {
  const std::string prefix = fmt::format("{}.{}.", slot.gemm, slot.operand);
  check_map(entry.value, fmt::format("{}.{}", slot.gemm, slot.operand));
  OperandSpec spec;
  for (const YamlEntry& setting : entry.value.entries) {
    if (setting.key == "format") {
      spec.format = choose<Format>(setting, format_names);
    } else if (setting.key == "block") {
      spec.block = choose<BlockShape>(setting, block_names);
    } else if (setting.key == "round") {
      spec.round = choose<Rounding>(setting, rounding_names);
    } else if (setting.key == "rotate") {
      spec.rotate = choose<int>(setting, rotation_names);
    } else if (setting.key == "from") {
      spec.from = choose<Source>(setting, source_names);
    } else if (setting.key == "scale") {
      choose<int>(setting, scale_names);
    } else {
      refuse_key(setting, prefix, {"format", "block", "round", "rotate", "from", "scale"});
    }
  }
  check_operand(entry.value, slot, spec);
  return spec;
}

void parse_gemm(const YamlEntry& entry, LinearRecipe& linear) {
  if (entry.value.kind == YamlNode::Kind::null) return;
  check_map(entry.value, shown(entry.key));
  for (const YamlEntry& operand : entry.value.entries) {
    const auto slot = std::find_if(slots.begin(), slots.end(), [&](const OperandSlot& s) {
      return s.gemm == entry.key && s.operand == operand.key;
    });
    if (slot == slots.end()) {
      std::vector<std::string_view> keys;
      for (const OperandSlot& s : slots) {
        if (s.gemm == entry.key) keys.push_back(s.operand);
      }
      refuse_key(operand, entry.key + ".", keys);
    }
    linear.*(slot->spec) = parse_operand(operand, *slot);
  }
}

// What can only be judged with both operands of a GEMM, or with the forward GEMM, in view.
void check_linear(const YamlNode& node, const LinearRecipe& linear) {
  const auto place = [&](std::string_view gemm) { return place_of(node, gemm); };
  for (size_t i = 0; i < slots.size(); i += 2) {
    const OperandSpec& a = linear.*(slots[i].spec);
    const OperandSpec& b = linear.*(slots[i + 1].spec);
    if (a.rotate == b.rotate) continue;
    refuse_config(place(slots[i].gemm), fmt::format("{} rotates only one of its operands", slots[i].gemm),
                  "the rotation cancels only if both operands have it: give both the same rotate");
  }
  const auto check_saved = [&](std::string_view gemm, const OperandSpec& spec, const OperandSpec& forward,
                               std::string_view name) {
    if (spec.from != Source::saved || forward.format == Format::nvfp4) return;
    refuse_config(place(gemm),
                  fmt::format("{}.{} is made from the saved forward operand, which is not quantised", gemm, name),
                  "use from: original, or quantise the forward operand");
  };
  check_saved("grad_input", linear.grad_input_w, linear.forward_w, "w");
  check_saved("grad_weight", linear.grad_weight_x, linear.forward_x, "x");
}

int parse_block_count(const YamlEntry& entry) {
  const auto value = parse_integer(scalar_text(entry));
  if (!value || value->negative || value->magnitude < 1 || value->magnitude > 100'000) {
    refuse_config(entry.value.place, fmt::format("{} is not a number of blocks", shown(entry.value.text)),
                  "use a whole number from 1 to 100000, or remove the rule");
  }
  return static_cast<int>(value->magnitude);
}

double parse_share(const YamlEntry& entry) {
  const auto value = parse_real(scalar_text(entry));
  if (!value || !(*value > 0) || *value > 1) {
    refuse_config(entry.value.place, fmt::format("{} is not a share of the blocks", shown(entry.value.text)),
                  "use a number above 0 and up to 1, for example 0.15");
  }
  return *value;
}

std::string parse_match(const YamlEntry& entry) {
  const std::string& text = scalar_text(entry);
  const std::string remedy = "use an extended regular expression on parameter names, for example \"embedding|head\"";
  if (text.empty() || text.size() > 200) {
    refuse_config(entry.value.place, "\"match\" must have 1 to 200 characters", remedy);
  }
  try {
    const std::regex compiled(text, std::regex::extended);
  } catch (const std::regex_error&) {
    refuse_config(entry.value.place, fmt::format("{} is not a regular expression", shown(text)), remedy);
  }
  return text;
}

HighPrecisionRule parse_rule(const YamlNode& node) {
  check_map(node, "a high_precision rule");
  HighPrecisionRule rule;
  int conditions = 0;
  for (const YamlEntry& entry : node.entries) {
    if (entry.key == "format") {
      rule.format = choose<Format>(entry, std::span(format_names).first(2));
      continue;
    }
    ++conditions;
    if (entry.key == "match") {
      rule.layers.match = parse_match(entry);
    } else if (entry.key == "first_blocks") {
      rule.layers.first_blocks = parse_block_count(entry);
    } else if (entry.key == "last_blocks") {
      rule.layers.last_blocks = parse_block_count(entry);
    } else if (entry.key == "last_share") {
      rule.layers.last_share = parse_share(entry);
    } else {
      refuse_key(entry, "high_precision.", {"match", "first_blocks", "last_blocks", "last_share", "format"});
    }
  }
  if (conditions != 1) {
    refuse_config(node.place, fmt::format("a high_precision rule with {} conditions", conditions),
                  "give each rule exactly one of match, first_blocks, last_blocks, last_share");
  }
  return rule;
}

std::string operand_yaml(const OperandSpec& spec) {
  std::string text = fmt::format("{{format: {}", name_in<Format>(format_names, spec.format));
  if (spec.format == Format::nvfp4) {
    text += fmt::format(", block: {}, scale: amax, round: {}", name_in<BlockShape>(block_names, spec.block),
                        name_in<Rounding>(rounding_names, spec.round));
    if (spec.rotate != 0) text += fmt::format(", rotate: {}", spec.rotate);
  }
  if (spec.from != Source::original) text += ", from: saved";
  return text + "}";
}

std::string rule_yaml(const HighPrecisionRule& rule) {
  std::string condition;
  if (!rule.layers.match.empty()) {
    condition = fmt::format("match: {}", yaml_string(rule.layers.match));
  } else if (rule.layers.first_blocks > 0) {
    condition = fmt::format("first_blocks: {}", rule.layers.first_blocks);
  } else if (rule.layers.last_blocks > 0) {
    condition = fmt::format("last_blocks: {}", rule.layers.last_blocks);
  } else {
    condition = fmt::format("last_share: {}", rule.layers.last_share);
  }
  return fmt::format("{{{}, format: {}}}", condition, name_in<Format>(format_names, rule.format));
}

bool is_path(std::string_view text) {
  return text.ends_with(".yaml") || text.ends_with(".yml") || text.find('/') != std::string_view::npos;
}

std::vector<std::string> recipe_directories(const std::string& config_directory) {
  std::vector<std::string> directories = {config_directory, config_directory + "/../recipes", "configs/recipes"};
  if (const char* configured = std::getenv("NIBBLE_CONFIG_DIR")) {
    directories.push_back(std::string(configured) + "/recipes");
  }
  std::error_code error;
  const fs::path executable = fs::read_symlink("/proc/self/exe", error);
  if (!error) {
    const fs::path beside = executable.parent_path();
    directories.push_back((beside / "configs/recipes").string());
    directories.push_back((beside.parent_path() / "share/nibble/configs/recipes").string());
  }
  return directories;
}

}  // namespace

Recipe parse_recipe(const YamlNode& node) {
  check_map(node, "a recipe");
  Recipe recipe;
  recipe.name = "unnamed";
  for (const YamlEntry& entry : node.entries) {
    if (entry.key == "name") {
      recipe.name = scalar_text(entry);
      const bool plain = yaml_string(recipe.name).front() != '"';
      if (!plain || recipe.name.size() > 64) {
        refuse_config(entry.value.place, fmt::format("{} is not a recipe name", shown(recipe.name)),
                      "use letters, digits, - and _, starting with a letter");
      }
    } else if (entry.key == "forward" || entry.key == "grad_input" || entry.key == "grad_weight") {
      parse_gemm(entry, recipe.linear);
    } else if (entry.key == "high_precision") {
      if (entry.value.kind == YamlNode::Kind::null) continue;
      if (entry.value.kind != YamlNode::Kind::sequence) {
        refuse_config(entry.value.place, "\"high_precision\" must be a list", "write one `- {match: ...}` a rule");
      }
      for (const YamlNode& item : entry.value.items) recipe.high_precision.push_back(parse_rule(item));
    } else {
      refuse_key(entry, "", {"name", "forward", "grad_input", "grad_weight", "high_precision"});
    }
  }
  check_linear(node, recipe.linear);
  return recipe;
}

Recipe load_recipe(const std::string& name_or_path, const std::string& config_directory) {
  if (is_path(name_or_path)) return parse_recipe(read_yaml_file(name_or_path));
  const std::vector<std::string> directories = recipe_directories(config_directory);
  for (const std::string& directory : directories) {
    const std::string path = fmt::format("{}/{}.yaml", directory, name_or_path);
    std::error_code error;
    if (fs::is_regular_file(path, error))
      return parse_recipe(read_yaml_file(fs::path(path).lexically_normal().string()));
  }
  throw Error(ExitCode::missing_input, fmt::format("no recipe {}", shown(name_or_path)),
              fmt::format("give the path of a .yaml file, or put {}.yaml into one of: {}", name_or_path,
                          fmt::join(directories, ", ")));
}

std::string recipe_yaml(const Recipe& recipe, int indent) {
  const std::string pad(static_cast<size_t>(indent), ' ');
  std::string text = fmt::format("{}name: {}\n", pad, yaml_string(recipe.name));
  std::string_view gemm;
  for (const OperandSlot& slot : slots) {
    if (slot.gemm != gemm) text += fmt::format("{}{}:\n", pad, slot.gemm);
    gemm = slot.gemm;
    text += fmt::format("{}  {}: {}\n", pad, slot.operand, operand_yaml(recipe.linear.*(slot.spec)));
  }
  if (recipe.high_precision.empty()) return text + fmt::format("{}high_precision: []\n", pad);
  text += fmt::format("{}high_precision:\n", pad);
  for (const HighPrecisionRule& rule : recipe.high_precision) text += fmt::format("{}  - {}\n", pad, rule_yaml(rule));
  return text;
}

}  // namespace nibble
