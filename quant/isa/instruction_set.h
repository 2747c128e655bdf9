// The instruction-set levels for which kernels exist; each includes those before it. The best level that the machine
// has is chosen at the first call of instruction_set(); NIBBLE_ISA in the environment forces a lower one.
//
// The codes and scales of quantised operands and the results of their GEMMs have the same bits on every level.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "dist/base/enum_names.h"

namespace nibble {

enum class InstructionSet : uint8_t {
  portable,     // the compiler's baseline
  avx2,         // AVX2, FMA
  avx512,       // AVX-512 F, BW, VL, DQ
  avx512_vnni,  // 8-bit dot products
  avx512_bf16,  // BF16 dot products
};
// The names are what NIBBLE_ISA takes.
constexpr auto enum_names(InstructionSet) {
  return std::to_array<EnumName<InstructionSet>>({{InstructionSet::portable, "portable"},
                                                  {InstructionSet::avx2, "avx2"},
                                                  {InstructionSet::avx512, "avx512"},
                                                  {InstructionSet::avx512_vnni, "avx512_vnni"},
                                                  {InstructionSet::avx512_bf16, "avx512_bf16"}});
}

// Returns the levels of this machine, ascending.
std::vector<InstructionSet> available_instruction_sets();
// Returns the level with this name, or the best one for an empty name. Throws Error(usage) for an unknown name
// or a level that the machine lacks.
InstructionSet select_instruction_set(std::string_view name);
// Returns the level in use; NIBBLE_ISA is read at the first call.
InstructionSet instruction_set();

}  // namespace nibble
