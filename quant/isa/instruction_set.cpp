#include "quant/isa/instruction_set.h"

#include <fmt/format.h>

#include <cstdlib>
#include <string>

#include "dist/base/error.h"

namespace nibble {
namespace {

// Returns whether the machine has what a level adds to the one before it.
bool adds(InstructionSet level) {
#if defined(__x86_64__)
  switch (level) {
    case InstructionSet::portable: return true;
    case InstructionSet::avx2: return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case InstructionSet::avx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    case InstructionSet::avx512_vnni: return __builtin_cpu_supports("avx512vnni");
    case InstructionSet::avx512_bf16: return __builtin_cpu_supports("avx512bf16");
  }
#endif
  return level == InstructionSet::portable;
}

std::string names() {
  std::string list;
  for (const InstructionSet level : available_instruction_sets()) {
    list += list.empty() ? "" : ", ";
    list += name_of(level);
  }
  return list;
}

}  // namespace

std::vector<InstructionSet> available_instruction_sets() {
  std::vector<InstructionSet> available;
  for (const InstructionSet level : all_values<InstructionSet>()) {
    if (!adds(level)) break;
    available.push_back(level);
  }
  return available;
}

InstructionSet select_instruction_set(std::string_view name) {
  const std::vector<InstructionSet> available = available_instruction_sets();
  if (name.empty()) return available.back();
  const std::optional<InstructionSet> level = parse_name<InstructionSet>(name);
  if (level && *level <= available.back()) return *level;
  throw Error(ExitCode::usage,
              fmt::format("NIBBLE_ISA={}: {}", name,
                          level ? "this processor does not have it" : "no such instruction-set level"),
              fmt::format("unset NIBBLE_ISA, or set it to one of this machine's levels: {}", names()));
}

InstructionSet instruction_set() {
  static const InstructionSet chosen = [] {
    const char* forced = std::getenv("NIBBLE_ISA");
    return select_instruction_set(forced == nullptr ? "" : forced);
  }();
  return chosen;
}

}  // namespace nibble
