// The operands of a recipe as they are written in YAML: key by key, perhaps in several files that extend each other.
// Contradictions are looked for when all keys have been read, and are reported at the key that caused them.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "quant/recipe/operand_role.h"
#include "quant/recipe/recipe.h"
#include "trainer/yaml/yaml_document.h"

namespace nibble {

// One key that was given: its location, and the operand before the key took effect.
struct WrittenSetting {
  SourceLocation location;
  OperandSpec before;
};

struct WrittenOperand {
  OperandSpec spec;
  SourceLocation location;  // where it was last written
  int turn = 0;             // counts the writings of all operands: a larger number was written later; 0 = never written
  bool inherits = false;    // the last writing changed some keys and kept the others
  std::vector<WrittenSetting> settings;
};

// The six operands of a linear layer. Each is bf16 until it is written.
struct WrittenLinear {
  std::array<WrittenOperand, operand_slots.size()> operands;  // in the order of operand_slots
  int turns = 0;
};

// Returns whether the key is "forward", "grad_input" or "grad_weight".
bool is_gemm_key(std::string_view key);
// Writes the two operands of one GEMM: `forward: {x: {...}, w: {...}}`, or one format for both. The keys change the
// operand that is there; `format` starts the operand anew, and `key: ~` restores the default of a key.
void write_gemm(const YamlEntry& entry, WrittenLinear& linear);
// Writes all six operands: `format: mxfp8_e4m3`.
void write_all_operands(const YamlEntry& entry, WrittenLinear& linear);

// Returns the operands when all keys have been read. Throws ExitCode::bad_config for settings that contradict each
// other: within an operand, between the operands of a GEMM, or between a backward operand and the saved forward operand
// that it is made from.
LinearRecipe finished(const WrittenLinear& written);
OperandLocations locations_of(const WrittenLinear& written);

// Writes every setting that matters to the format: "{format: nvfp4, block: 1x16, scale: amax, round: nearest}".
std::string operand_yaml(const OperandSpec& spec);

// The functions below read parts of a recipe's YAML. They throw ExitCode::bad_config with the location.
Format parse_format(const YamlEntry& entry);
const std::string& scalar_text(const YamlEntry& entry);
void check_map(const YamlNode& node, std::string_view what);
[[noreturn]] void refuse_key(const YamlEntry& entry, const std::string& prefix,
                             const std::vector<std::string_view>& keys);
[[noreturn]] void refuse_value(const YamlEntry& entry, const std::vector<std::string_view>& values);
// Returns the value whose name_of() is the entry's text.
template <class Value, size_t count>
Value choose(const YamlEntry& entry, const std::array<Value, count>& values) {
  std::vector<std::string_view> names;
  for (const Value value : values) {
    names.push_back(name_of(value));
    if (names.back() == scalar_text(entry)) return value;
  }
  refuse_value(entry, names);
}

}  // namespace nibble
