// The instruction-set levels for which kernels exist; each includes those before it. The best level that the machine
// has is chosen at the first call of instruction_set(); NIBBLE_ISA in the environment forces a lower one.
//
// The codes and scales of quantised operands and the results of their GEMMs have the same bits on every level.
#pragma once

#include <cstdint>
#include <vector>

namespace nibble {

enum class InstructionSet : uint8_t {
  portable,     // the compiler's baseline
  avx2,         // AVX2, FMA
  avx512,       // AVX-512 F, BW, VL, DQ
  avx512_vnni,  // 8-bit dot products
  avx512_bf16,  // BF16 dot products
};

// Returns the name that NIBBLE_ISA takes: "portable", "avx2", ...
const char* name_of(InstructionSet level);
// Returns the levels of this machine, ascending.
std::vector<InstructionSet> available_instruction_sets();
// Returns the level with this name, or the best one for a null or empty name. Throws Error(usage) for an unknown name
// or a level that the machine lacks.
InstructionSet select_instruction_set(const char* name);
// Returns the level in use; NIBBLE_ISA is read at the first call.
InstructionSet instruction_set();

}  // namespace nibble
