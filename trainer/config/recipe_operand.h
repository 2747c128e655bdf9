// The operands of a recipe as they are written in YAML: one key at a time, perhaps over several files that extend each
// other. What contradicts itself is judged when all has been read, and reported at the key that caused it.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "quant/recipe/operand_role.h"
#include "quant/recipe/recipe.h"
#include "trainer/config/yaml_document.h"

namespace nibble {

// Where a key was given, and the operand before it.
struct WrittenSetting {
  YamlPlace place;
  OperandSpec before;
};

struct WrittenOperand {
  OperandSpec spec;
  YamlPlace place;        // where it was last written
  int turn = 0;           // the larger, the later; 0: never
  bool inherits = false;  // the last writing changed some keys and kept others
  std::vector<WrittenSetting> settings;
};

// bf16 until something else is written.
struct WrittenLinear {
  std::array<WrittenOperand, operand_slots.size()> operands;  // in the order of operand_slots
  int turns = 0;
};

// "forward", "grad_input" or "grad_weight".
bool is_gemm_key(std::string_view key);
// `forward: {x: {...}, w: {...}}`, or a format for both. Keys change what is there; `format` starts an operand anew,
// and `key: ~` takes a key back.
void write_gemm(const YamlEntry& entry, WrittenLinear& linear);
// `format: mxfp8_e4m3`: all six.
void write_all_operands(const YamlEntry& entry, WrittenLinear& linear);

// Throws for settings that contradict each other, within an operand, between the operands of a product, or between a
// backward operand and the saved forward operand it is made from.
LinearRecipe finished(const WrittenLinear& written);
OperandPlaces places_of(const WrittenLinear& written);

// "{format: nvfp4, block: 1x16, scale: amax, round: nearest}": every setting that matters to the format.
std::string operand_yaml(const OperandSpec& spec);

// What all parts of a recipe's YAML are read with. They throw ExitCode::bad_config with the place.
Format parse_format(const YamlEntry& entry);
const std::string& scalar_text(const YamlEntry& entry);
void check_map(const YamlNode& node, std::string_view what);
[[noreturn]] void refuse_key(const YamlEntry& entry, const std::string& prefix,
                             const std::vector<std::string_view>& keys);
[[noreturn]] void refuse_value(const YamlEntry& entry, const std::vector<std::string_view>& values);
// The value whose name_of() is the entry's text.
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
