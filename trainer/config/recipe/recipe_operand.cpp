#include "trainer/config/recipe/recipe_operand.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "dist/base/error.h"
#include "dist/base/text.h"
#include "quant/recipe/operand_table.h"

namespace nibble {
namespace {

// Returns the names of the keys of an operand.
std::vector<std::string_view> key_names() {
  std::vector<std::string_view> names = {"format"};
  for (const OperandKey& key : operand_keys()) names.push_back(key.key);
  return names;
}

[[noreturn]] void refuse_number(const YamlEntry& entry, const OperandKey& key) {
  refuse_config(entry.value.location, fmt::format("{} is not a value of \"{}\"", shown(entry.value.text), entry.key),
                key.is_whole ? fmt::format("use a whole number from {} to {}", key.smallest, key.largest)
                             : fmt::format("use a number up to {}; 0 is the rule's default", key.largest));
}

double parse_number(const YamlEntry& entry, const OperandKey& key) {
  if (key.is_whole) {
    const auto value = parse_integer(scalar_text(entry));
    if (!value || value->negative || static_cast<double>(value->magnitude) > key.largest) refuse_number(entry, key);
    return static_cast<double>(value->magnitude);
  }
  const auto value = parse_real(scalar_text(entry));
  if (!value || !(*value >= 0) || *value > key.largest) refuse_number(entry, key);
  return *value;
}

void choose_value(const YamlEntry& entry, const OperandKey& key, OperandSpec& spec) {
  const std::vector<std::string_view> names = values_of(key, spec.format);
  if (std::find(names.begin(), names.end(), scalar_text(entry)) == names.end()) refuse_value(entry, names);
  key.choose(scalar_text(entry), spec);
}

// Sets one key of an operand, any but `format`. A key without a value gets its default.
void set(const YamlEntry& entry, const OperandKey& key, OperandSpec& spec) {
  if (entry.value.kind == YamlNode::Kind::null) {
    key.reset(spec);
  } else if (key.values.empty()) {
    key.set_number(parse_number(entry, key), spec);
  } else {
    choose_value(entry, key, spec);
  }
}

// Refuses a key that the format has no use for: one that names blocks or scales, or that differs from its default.
void check_use(const YamlEntry& entry, const OperandSlot& slot, Format format, bool changes) {
  const bool idle_block = entry.key == "block" && traits_of(format).block == 0;
  const bool idle = idle_block || (!is_quantized(format) && entry.key != "from" && (entry.key == "scale" || changes));
  if (!idle) return;
  const std::string_view instead = idle_block && is_quantized(format) ? "nvfp4" : "a quantised format, such as nvfp4";
  refuse_config(entry.location, fmt::format("{} is {}, which has no \"{}\"", slot.name(), name_of(format), entry.key),
                fmt::format("remove \"{}\", or set format: {}", entry.key, instead));
}

void start_operand(const YamlEntry& entry, Format format, WrittenOperand& operand) {
  const SourceLocation location = entry.location;
  operand = {
      .spec = plain_operand(format), .location = location, .turn = operand.turn, .inherits = false, .settings = {}};
}

void write_operand(const YamlEntry& entry, const OperandSlot& slot, WrittenOperand& operand) {
  if (entry.value.kind == YamlNode::Kind::scalar) {
    start_operand(entry, parse_format(entry), operand);
    return;
  }
  check_map(entry.value, slot.name());
  operand.location = entry.location;
  operand.inherits = operand.turn != 0;
  if (const YamlEntry* format = entry.value.find("format")) start_operand(entry, parse_format(*format), operand);
  for (const YamlEntry& setting : entry.value.entries) {
    if (setting.key == "format") continue;
    const OperandKey* key = find_operand_key(setting.key);
    if (key == nullptr) refuse_key(setting, slot.name() + ".", key_names());
    const OperandSpec before = operand.spec;
    set(setting, *key, operand.spec);
    if (setting.value.kind != YamlNode::Kind::null) {
      check_use(setting, slot, operand.spec.format, operand.spec != before);
    }
    operand.settings.push_back({setting.location, before});
  }
}

// Reports a fault of the operand at the key that caused it: the last key before which the operand had none.
void check_operand(const OperandSlot& slot, const WrittenOperand& operand) {
  const std::optional<RecipeFault> fault = find_fault(operand.spec, slot.role);
  if (!fault) return;
  const auto sound =
      std::find_if(operand.settings.rbegin(), operand.settings.rend(),
                   [&](const WrittenSetting& setting) { return !find_fault(setting.before, slot.role); });
  const SourceLocation& location = sound == operand.settings.rend() ? operand.location : sound->location;
  const std::string_view more = operand.inherits ? "; an inherited key is taken back by `key: ~`" : "";
  refuse_config(location, fault->what, fault->remedy + std::string(more));
}

const WrittenOperand& later(const WrittenOperand& a, const WrittenOperand& b) {
  return a.turn >= b.turn ? a : b;
}

}  // namespace

bool is_gemm_key(std::string_view key) {
  return std::any_of(operand_slots.begin(), operand_slots.end(), [&](const OperandSlot& s) { return s.gemm() == key; });
}

void write_gemm(const YamlEntry& entry, WrittenLinear& linear) {
  if (entry.value.kind == YamlNode::Kind::null) return;
  const int turn = ++linear.turns;
  if (entry.value.kind == YamlNode::Kind::scalar) {
    for (size_t i = 0; i < operand_slots.size(); ++i) {
      if (operand_slots[i].gemm() != entry.key) continue;
      start_operand(entry, parse_format(entry), linear.operands[i]);
      linear.operands[i].turn = turn;
    }
    return;
  }
  check_map(entry.value, shown(entry.key));
  for (const YamlEntry& operand : entry.value.entries) {
    const auto slot = std::find_if(operand_slots.begin(), operand_slots.end(), [&](const OperandSlot& s) {
      return s.gemm() == entry.key && s.operand() == operand.key;
    });
    if (slot == operand_slots.end()) {
      std::vector<std::string_view> keys;
      for (const OperandSlot& s : operand_slots) {
        if (s.gemm() == entry.key) keys.push_back(s.operand());
      }
      refuse_key(operand, entry.key + ".", keys);
    }
    WrittenOperand& written = linear.operands[static_cast<size_t>(slot - operand_slots.begin())];
    write_operand(operand, *slot, written);
    written.turn = ++linear.turns;
  }
}

void write_all_operands(const YamlEntry& entry, WrittenLinear& linear) {
  const Format format = parse_format(entry);
  const int turn = ++linear.turns;
  for (WrittenOperand& operand : linear.operands) {
    start_operand(entry, format, operand);
    operand.turn = turn;
  }
}

LinearRecipe finished(const WrittenLinear& written) {
  LinearRecipe linear;
  for (size_t i = 0; i < operand_slots.size(); ++i) {
    check_operand(operand_slots[i], written.operands[i]);
    linear.*(operand_slots[i].spec) = written.operands[i].spec;
  }
  if (const std::optional<RecipeFault> fault = find_fault(linear)) {
    const auto& operands = written.operands;
    refuse_config(
        later(operands[static_cast<size_t>(fault->role)], operands[static_cast<size_t>(fault->other)]).location,
        fault->what, fault->remedy);
  }
  return linear;
}

OperandLocations locations_of(const WrittenLinear& written) {
  OperandLocations locations;
  for (size_t i = 0; i < locations.size(); ++i) {
    if (written.operands[i].turn > 0) locations[i] = written.operands[i].location.text();
  }
  return locations;
}

std::string operand_yaml(const OperandSpec& spec) {
  std::string text = fmt::format("{{format: {}", name_of(spec.format));
  for (const OperandKey& key : operand_keys()) {
    const bool is_useful = is_quantized(spec.format) || key.key == "from";
    if (is_useful && key.is_written(spec)) text += fmt::format(", {}: {}", key.key, key.text(spec));
  }
  return text + "}";
}

Format parse_format(const YamlEntry& entry) {
  const std::optional<Format> format = parse_name<Format>(scalar_text(entry));
  if (format) return *format;
  std::vector<std::string_view> names;
  for (const OperandValue& value : operand_formats()) names.push_back(value.name);
  refuse_value(entry, names);
}

const std::string& scalar_text(const YamlEntry& entry) {
  if (entry.value.kind != YamlNode::Kind::scalar) {
    refuse_config(entry.value.location, fmt::format("{} needs a single value", shown(entry.key)), "write key: value");
  }
  return entry.value.text;
}

void check_map(const YamlNode& node, std::string_view what) {
  if (node.kind == YamlNode::Kind::map) return;
  refuse_config(node.location, fmt::format("{} must be a mapping", what), "write `key: value` lines below it");
}

void refuse_key(const YamlEntry& entry, const std::string& prefix, const std::vector<std::string_view>& keys) {
  const std::string_view nearest = nearest_word(entry.key, keys);
  const std::string meant = nearest.empty() ? std::string() : prefix + std::string(nearest);
  refuse_config(entry.location, fmt::format("unknown key {}{}", shown(prefix + entry.key), did_you_mean(meant)),
                fmt::format("the keys here are {}", fmt::join(keys, ", ")));
}

void refuse_value(const YamlEntry& entry, const std::vector<std::string_view>& values) {
  const std::string& text = scalar_text(entry);
  refuse_config(
      entry.value.location,
      fmt::format("{} is not a value of \"{}\"{}", shown(text), entry.key, did_you_mean(nearest_word(text, values))),
      fmt::format("use {}", fmt::join(values, ", ")));
}

}  // namespace nibble
