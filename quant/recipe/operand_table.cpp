#include "quant/recipe/operand_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <type_traits>

namespace nibble {
namespace {

template <class Enum>
std::vector<OperandValue> values_of_enum() {
  std::vector<OperandValue> values;
  for (const Enum value : all_values<Enum>()) values.push_back({name_of(value), doc_of(value)});
  return values;
}

// The functions of a row that follow from the member of OperandSpec.
template <auto member>
struct Member {
  using Value = std::remove_reference_t<decltype(OperandSpec().*member)>;

  static bool choose(std::string_view name, OperandSpec& spec) {
    if constexpr (NamedEnum<Value>) {
      const std::optional<Value> value = parse_name<Value>(name);
      if (value) spec.*member = *value;
      return value.has_value();
    } else {
      return std::from_chars(name.data(), name.data() + name.size(), spec.*member).ptr == name.data() + name.size();
    }
  }
  static void set_number(double value, OperandSpec& spec) { spec.*member = static_cast<Value>(value); }
  static void reset(OperandSpec& spec) { spec.*member = plain_operand(spec.format).*member; }
  static std::string text(const OperandSpec& spec) {
    if constexpr (NamedEnum<Value>) {
      return std::string(name_of(spec.*member));
    } else {
      return fmt::format("{}", spec.*member);
    }
  }
  static bool is_not_default(const OperandSpec& spec) { return spec.*member != OperandSpec().*member; }
};

bool is_blocked(const OperandSpec& spec) {
  return traits_of(spec.format).block != 0;
}
bool has_a_scale(const OperandSpec& spec) {
  return is_quantized(spec.format);
}
bool is_eden(const OperandSpec& spec) {
  return spec.round == Rounding::ms_eden;
}
bool is_rotated(const OperandSpec& spec) {
  return spec.rotate != 0;
}

bool choose_block(std::string_view name, OperandSpec& spec) {
  spec.block = BlockShape::row;
  if (!is_blocked(spec) || name == name_of(spec.format, BlockShape::row)) return true;  // the parser refuses the key
  spec.block = BlockShape::square;
  return spec.format == Format::nvfp4 && name == name_of(spec.format, BlockShape::square);
}

std::string block_text(const OperandSpec& spec) {
  return name_of(spec.format, spec.block);
}

// Completes a row by what follows from its member.
template <auto member>
OperandKey row(OperandKey key) {
  using Row = Member<member>;
  using Value = typename Row::Value;
  if constexpr (NamedEnum<Value>) key.values = values_of_enum<Value>();
  if constexpr (NamedEnum<Value> || std::is_integral_v<Value>) {
    if (!key.values.empty()) key.choose = &Row::choose;
  }
  if constexpr (NamedEnum<Value> || std::is_arithmetic_v<Value>) key.text = &Row::text;
  if (key.values.empty()) key.set_number = &Row::set_number;
  key.is_whole = std::is_integral_v<Value>;
  key.reset = &Row::reset;
  if (key.is_written == nullptr) key.is_written = &Row::is_not_default;
  if (key.is_described == nullptr) key.is_described = key.is_written;
  return key;
}

const std::vector<OperandKey>& rows() {
  using Spec = OperandSpec;
  static const std::vector<OperandKey> keys = {
      row<&Spec::block>({.key = "block",
                         .doc = "Elements that share a scale.",
                         .default_text = "`1x16`; mxfp4, mxfp8: `1x32`",
                         .values = {{"1x16", "nvfp4: 16 elements of a row"},
                                    {"16x16", "nvfp4: a square; a matrix and its transpose hold the same values"},
                                    {"1x32", "mxfp4 and mxfp8: 32 elements of a row"}},
                         .choose = &choose_block,
                         .text = &block_text,
                         .is_written = &is_blocked}),
      row<&Spec::scale>({.key = "scale",
                         .doc = "How the scale of a block is chosen.",
                         .default_text = "`amax`; mxfp8: `amax_up`",
                         .is_written = &has_a_scale,
                         .is_described = &Member<&Spec::scale>::is_not_default}),
      row<&Spec::round>({.key = "round",
                         .doc = "How an element is rounded to the format.",
                         .default_text = "`nearest`",
                         .is_written = &has_a_scale}),
      row<&Spec::correction>({.key = "correction",
                              .doc =
                                  "`ms_eden` only: the elements that share a correction, and when the tensor's scale "
                                  "is chosen.",
                              .default_text = "`post_hoc`",
                              .is_written = &is_eden}),
      row<&Spec::range>({.key = "range",
                         .doc = "nvfp4: the value on the E2M1 grid to which a block's maximum is scaled.",
                         .default_text = "the rule's",
                         .smallest = 1,
                         .largest = 8,
                         .word = "range "}),
      row<&Spec::ceiling>({.key = "ceiling",
                           .doc = "nvfp4: the E4M3 scale of the block with the tensor's maximum.",
                           .default_text = "the rule's",
                           .smallest = 1,
                           .largest = 448,
                           .word = "ceiling "}),
      row<&Spec::outer>({.key = "outer",
                         .doc = "nvfp4: the elements that share one FP32 scale.",
                         .default_text = "`tensor`",
                         .word = "outer "}),
      row<&Spec::history>({.key = "history",
                           .doc = "fp8: the scale comes from the largest magnitude of so many previous steps; 0 = from "
                                  "the tensor itself.",
                           .default_text = "`0`",
                           .smallest = 0,
                           .largest = largest_history,
                           .unit = "steps",
                           .word = "history "}),
      row<&Spec::rotate>({.key = "rotate",
                          .doc = "Points of the Hadamard rotation along the axis that the GEMM sums over.",
                          .default_text = "`0`",
                          .values = {{"0", "no rotation"},
                                     {"16", "16 points"},
                                     {"32", "32 points"},
                                     {"64", "64 points"},
                                     {"128", "128 points"}},
                          .word = "rotate "}),
      row<&Spec::rotations>({.key = "rotations",
                             .doc = "Number of rotations; each has its own signs.",
                             .default_text = "`1`",
                             .values = {{"1", "one"}, {"2", "two, one after the other"}},
                             .is_described = [](const Spec& spec) { return is_rotated(spec) && spec.rotations != 1; },
                             .word = "x "}),
      row<&Spec::signs>({.key = "signs",
                         .doc =
                             "Signs of the rotation. `forward` has no `micro_batch`, because its weight is quantised "
                             "once in a step.",
                         .default_text = "`fixed`",
                         .is_written = &is_rotated,
                         .word = "signs "}),
      row<&Spec::from>({.key = "from",
                        .doc = "`grad_input.w` and `grad_weight.x`: from which tensor the operand is made.",
                        .default_text = "`original`",
                        .word = "from "}),
  };
  return keys;
}

}  // namespace

std::span<const OperandKey> operand_keys() {
  return rows();
}

const OperandKey* find_operand_key(std::string_view key) {
  const auto found =
      std::find_if(rows().begin(), rows().end(), [&](const OperandKey& candidate) { return candidate.key == key; });
  return found == rows().end() ? nullptr : &*found;
}

std::span<const OperandValue> operand_formats() {
  static const std::vector<OperandValue> formats = [] {
    std::vector<OperandValue> values = values_of_enum<Format>();
    std::rotate(values.begin(), values.begin() + 1, values.end());  // fp32, which hardly anybody uses, comes last
    return values;
  }();
  return formats;
}

std::vector<std::string_view> values_of(const OperandKey& key, Format format) {
  std::vector<std::string_view> names;
  for (const OperandValue& value : key.values) {
    OperandSpec spec = plain_operand(format);
    if (key.choose(value.name, spec)) names.push_back(value.name);
  }
  return names;
}

}  // namespace nibble
