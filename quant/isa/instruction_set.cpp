#include "quant/isa/instruction_set.h"

#include <fmt/format.h>

#include <array>
#include <cstdlib>
#include <string>
#include <string_view>

#include "dist/base/error.h"

namespace nibble {
namespace {

constexpr std::array levels{InstructionSet::portable, InstructionSet::avx2, InstructionSet::avx512,
                            InstructionSet::avx512_vnni, InstructionSet::avx512_bf16};

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

const char* name_of(InstructionSet level) {
  switch (level) {
    case InstructionSet::portable: return "portable";
    case InstructionSet::avx2: return "avx2";
    case InstructionSet::avx512: return "avx512";
    case InstructionSet::avx512_vnni: return "avx512_vnni";
    case InstructionSet::avx512_bf16: return "avx512_bf16";
  }
  return "";
}

std::vector<InstructionSet> available_instruction_sets() {
  std::vector<InstructionSet> available;
  for (const InstructionSet level : levels) {
    if (!adds(level)) break;
    available.push_back(level);
  }
  return available;
}

InstructionSet select_instruction_set(const char* name) {
  const std::vector<InstructionSet> available = available_instruction_sets();
  if (name == nullptr || *name == '\0') return available.back();
  const std::string_view wanted = name;
  for (const InstructionSet level : available) {
    if (wanted == name_of(level)) return level;
  }
  bool known = false;
  for (const InstructionSet level : levels) known = known || wanted == name_of(level);
  throw Error(ExitCode::usage,
              fmt::format("NIBBLE_ISA={}: {}", name,
                          known ? "this processor does not have it" : "no such instruction-set level"),
              fmt::format("unset NIBBLE_ISA, or set it to one of this machine's levels: {}", names()));
}

InstructionSet instruction_set() {
  static const InstructionSet chosen = select_instruction_set(std::getenv("NIBBLE_ISA"));
  return chosen;
}

}  // namespace nibble
