// The keys by which a recipe describes an operand, one row each, and what they may not say together, one row a rule.
//
// The parser, the printer, describe(), the JSON Schema and the tables of docs/configuration.md are made from the rows:
// another key is a member of OperandSpec, a row of operand_table.cpp and what it does in quant/quantize/. The rules are
// in operand_rules.cpp.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quant/recipe/operand_role.h"

namespace nibble {

struct OperandValue {
  std::string_view name;
  std::string_view doc;
};

struct OperandKey {
  std::string_view key;
  std::string_view doc;
  std::string_view default_text;  // for documentation, in Markdown
  // A key has either values to choose from, or a number from `smallest` to `largest`, or 0.
  std::vector<OperandValue> values = {};
  double smallest = 0;
  double largest = 0;
  bool is_whole = false;
  std::string_view unit = {};  // of the number

  // Sets the key to one of its values; returns false if the format has no such block.
  bool (*choose)(std::string_view name, OperandSpec& spec) = nullptr;
  void (*set_number)(double value, OperandSpec& spec) = nullptr;
  // Sets the key to the default of the spec's format.
  void (*reset)(OperandSpec& spec) = nullptr;
  // Returns the value as a recipe has it.
  std::string (*text)(const OperandSpec& spec) = nullptr;
  // Returns whether a complete recipe says it, and whether describe() does, there with this word before it.
  bool (*is_written)(const OperandSpec& spec) = nullptr;
  bool (*is_described)(const OperandSpec& spec) = nullptr;
  std::string_view word = {};
};

// All keys but `format`, in the order in which recipes are printed.
std::span<const OperandKey> operand_keys();
const OperandKey* find_operand_key(std::string_view key);
// The formats, in the order in which they are listed for people.
std::span<const OperandValue> operand_formats();
// Returns the values that may be written for operands of this format, as far as the key alone decides it.
std::vector<std::string_view> values_of(const OperandKey& key, Format format);

// What is wrong with a recipe for linear layers, and at which operands.
struct RecipeFault {
  OperandRole role = OperandRole::forward_x;
  OperandRole other = OperandRole::forward_x;  // the operand with which it does not go together, or the same
  std::string what;
  std::string remedy;
};

// Returns what is wrong with an operand by itself; nothing if nothing is. With a role, also what is wrong with it
// there.
std::optional<RecipeFault> find_fault(const OperandSpec& spec);
std::optional<RecipeFault> find_fault(const OperandSpec& spec, OperandRole role);
// Returns the first fault of the six operands, each by itself and together.
std::optional<RecipeFault> find_fault(const LinearRecipe& recipe);

}  // namespace nibble
