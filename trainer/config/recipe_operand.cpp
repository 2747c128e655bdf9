#include "trainer/config/recipe_operand.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "dist/base/error.h"
#include "dist/base/text.h"

namespace nibble {
namespace {

constexpr std::array formats = {Format::bf16,       Format::nvfp4,    Format::mxfp4,    Format::mxfp8_e4m3,
                                Format::mxfp8_e5m2, Format::fp8_e4m3, Format::fp8_e5m2, Format::f32};
constexpr std::array scales = {ScaleRule::amax,
                               ScaleRule::amax_up,
                               ScaleRule::four_over_six,
                               ScaleRule::four_over_six_mae,
                               ScaleRule::four_over_six_abs_max,
                               ScaleRule::search,
                               ScaleRule::rms};
constexpr std::array roundings = {Rounding::nearest, Rounding::stochastic, Rounding::stochastic_published,
                                  Rounding::ms_eden};
constexpr std::array corrections = {EdenCorrection::post_hoc, EdenCorrection::post_hoc_published,
                                    EdenCorrection::per_16, EdenCorrection::per_128, EdenCorrection::per_128_published};
constexpr std::array outers = {OuterScale::tensor, OuterScale::row_128};
constexpr std::array all_signs = {Signs::fixed, Signs::step, Signs::micro_batch};
constexpr std::array sources = {Source::original, Source::saved};

const std::vector<std::string_view>& operand_keys() {
  static const std::vector<std::string_view> keys = {"format",    "block",   "scale", "round",   "correction",
                                                     "range",     "ceiling", "outer", "history", "rotate",
                                                     "rotations", "signs",   "from"};
  return keys;
}

int parse_history(const YamlEntry& entry) {
  const auto value = parse_integer(scalar_text(entry));
  if (!value || value->negative || value->magnitude > static_cast<uint64_t>(largest_history)) {
    refuse_config(entry.value.location, fmt::format("{} is not a value of \"{}\"", shown(entry.value.text), entry.key),
                  fmt::format("use a whole number from 0 to {}", largest_history));
  }
  return static_cast<int>(value->magnitude);
}

int choose_count(const YamlEntry& entry, const std::vector<std::string_view>& words) {
  if (std::find(words.begin(), words.end(), scalar_text(entry)) == words.end()) refuse_value(entry, words);
  return static_cast<int>(parse_integer(scalar_text(entry))->magnitude);
}

float parse_magnitude(const YamlEntry& entry, double largest) {
  const auto value = parse_real(scalar_text(entry));
  if (!value || !(*value >= 0) || *value > largest) {
    refuse_config(entry.value.location, fmt::format("{} is not a value of \"{}\"", shown(entry.value.text), entry.key),
                  fmt::format("use a number up to {}; 0 is the rule's default", largest));
  }
  return static_cast<float>(*value);
}

BlockShape parse_block(const YamlEntry& entry, Format format) {
  if (traits_of(format).block == 0) return BlockShape::row;  // check_use() refuses the key
  const std::string row = name_of(format, BlockShape::row);
  if (scalar_text(entry) == row) return BlockShape::row;
  if (format != Format::nvfp4) refuse_value(entry, {row});
  const std::string square = name_of(format, BlockShape::square);
  if (scalar_text(entry) == square) return BlockShape::square;
  refuse_value(entry, {row, square});
}

// Sets one key of an operand, any but `format`. A key without a value gets its default.
void set(const YamlEntry& entry, OperandSpec& spec) {
  const bool take_back = entry.value.kind == YamlNode::Kind::null;
  const OperandSpec plain = plain_operand(spec.format);
  const std::string& key = entry.key;
  if (key == "block") {
    spec.block = take_back ? plain.block : parse_block(entry, spec.format);
  } else if (key == "scale") {
    spec.scale = take_back ? plain.scale : choose(entry, scales);
  } else if (key == "round") {
    spec.round = take_back ? plain.round : choose(entry, roundings);
  } else if (key == "correction") {
    spec.correction = take_back ? plain.correction : choose(entry, corrections);
  } else if (key == "range") {
    spec.range = take_back ? plain.range : parse_magnitude(entry, 8);
  } else if (key == "ceiling") {
    spec.ceiling = take_back ? plain.ceiling : parse_magnitude(entry, 448);
  } else if (key == "outer") {
    spec.outer = take_back ? plain.outer : choose(entry, outers);
  } else if (key == "history") {
    spec.history = take_back ? plain.history : parse_history(entry);
  } else if (key == "rotate") {
    spec.rotate = take_back ? plain.rotate : choose_count(entry, {"0", "16", "32", "64", "128"});
  } else if (key == "rotations") {
    spec.rotations = take_back ? plain.rotations : choose_count(entry, {"1", "2"});
  } else if (key == "signs") {
    spec.signs = take_back ? plain.signs : choose(entry, all_signs);
  } else {
    spec.from = take_back ? plain.from : choose(entry, sources);
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
    const std::vector<std::string_view>& keys = operand_keys();
    if (std::find(keys.begin(), keys.end(), setting.key) == keys.end()) refuse_key(setting, slot.name() + ".", keys);
    const OperandSpec before = operand.spec;
    set(setting, operand.spec);
    if (setting.value.kind != YamlNode::Kind::null) {
      check_use(setting, slot, operand.spec.format, operand.spec != before);
    }
    operand.settings.push_back({setting.location, before});
  }
}

struct Fault {
  std::string what, remedy;
};

// Returns what is wrong with an operand by itself, without regard to the other operands.
std::optional<Fault> fault_of(const OperandSlot& slot, const OperandSpec& spec) {
  try {
    check_supported(spec, slot.name());
  } catch (const Error& error) {
    return Fault{error.what(), error.remedy()};
  }
  if (spec.round == Rounding::ms_eden && !has_drawn_signs(spec)) {
    return Fault{slot.name() + ": round: ms_eden without drawn signs is biased: nothing but the rotation is random",
                 "set rotate: 128 and signs: micro_batch (or step), for both operands of the product"};
  }
  if (slot.gemm() == "forward" && spec.signs == Signs::micro_batch) {
    return Fault{slot.name() + ": signs: micro_batch, but the forward weight is made once a step",
                 "set signs: step (or fixed), for both operands of forward"};
  }
  if (spec.from == Source::saved && (slot.gemm() == "forward" || slot.operand() == "dy")) {
    return Fault{slot.name() + " cannot be made from a saved operand",
                 "only grad_input.w and grad_weight.x have a forward operand; use from: original"};
  }
  return {};
}

// Reports a fault of the operand at the key that caused it: the last key before which the operand had none.
void check_operand(const OperandSlot& slot, const WrittenOperand& operand) {
  const std::optional<Fault> fault = fault_of(slot, operand.spec);
  if (!fault) return;
  const auto sound = std::find_if(operand.settings.rbegin(), operand.settings.rend(),
                                  [&](const WrittenSetting& setting) { return !fault_of(slot, setting.before); });
  const SourceLocation& location = sound == operand.settings.rend() ? operand.location : sound->location;
  const std::string_view more = operand.inherits ? "; an inherited key is taken back by `key: ~`" : "";
  refuse_config(location, fault->what, fault->remedy + std::string(more));
}

const WrittenOperand& later(const WrittenOperand& a, const WrittenOperand& b) {
  return a.turn >= b.turn ? a : b;
}

// Refuses a rotation that only one of the two operands of a GEMM has: it would not cancel in the product.
void check_rotations(const OperandSlot& slot, const WrittenOperand& a, const WrittenOperand& b,
                     std::string_view other) {
  const auto refuse = [&](std::string_view key, const std::string& values) {
    refuse_config(later(a, b).location,
                  fmt::format("{}: {} and {} differ in {}: {}", slot.gemm(), slot.operand(), other, key, values),
                  fmt::format("the rotation cancels only if both operands have it: give both the same {}", key));
  };
  if (a.spec.rotate != b.spec.rotate) refuse("rotate", fmt::format("{} and {}", a.spec.rotate, b.spec.rotate));
  if (a.spec.rotations != b.spec.rotations) {
    refuse("rotations", fmt::format("{} and {}", a.spec.rotations, b.spec.rotations));
  }
  if (a.spec.signs != b.spec.signs) {
    refuse("signs", fmt::format("{} and {}", name_of(a.spec.signs), name_of(b.spec.signs)));
  }
}

void check_saved(const OperandSlot& slot, const WrittenOperand& operand, const WrittenOperand& forward) {
  if (operand.spec.from != Source::saved) return;
  const auto refuse = [&](std::string_view state, std::string_view remedy) {
    refuse_config(later(operand, forward).location,
                  fmt::format("{} is made from the saved forward operand, which is {}", slot.name(), state),
                  fmt::format("set from: original for {}, or {}", slot.name(), remedy));
  };
  if (!is_quantized(forward.spec.format)) refuse("not quantised", "quantise the forward operand");
  if (forward.spec.rotate != 0) refuse("rotated", "rotate: 0 in forward");
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
  for (size_t i = 0; i < operand_slots.size(); i += 2) {
    check_rotations(operand_slots[i], written.operands[i], written.operands[i + 1], operand_slots[i + 1].operand());
  }
  check_saved(operand_slots[3], written.operands[3], written.operands[1]);
  check_saved(operand_slots[5], written.operands[5], written.operands[0]);
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
  const auto add = [&](std::string_view key, const auto& value) { text += fmt::format(", {}: {}", key, value); };
  if (is_quantized(spec.format)) {
    if (traits_of(spec.format).block != 0) add("block", name_of(spec.format, spec.block));
    add("scale", name_of(spec.scale));
    add("round", name_of(spec.round));
    if (spec.round == Rounding::ms_eden) add("correction", name_of(spec.correction));
    if (spec.range != 0) add("range", spec.range);
    if (spec.ceiling != 0) add("ceiling", spec.ceiling);
    if (spec.outer != OuterScale::tensor) add("outer", name_of(spec.outer));
    if (spec.history != 0) add("history", spec.history);
    if (spec.rotate != 0) add("rotate", spec.rotate);
    if (spec.rotations != 1) add("rotations", spec.rotations);
    if (spec.rotate != 0) add("signs", name_of(spec.signs));
  }
  if (spec.from != Source::original) add("from", name_of(spec.from));
  return text + "}";
}

Format parse_format(const YamlEntry& entry) {
  return choose(entry, formats);
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
