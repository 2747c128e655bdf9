// The instruction-set levels for which kernels exist, each including those before it. The best level that the machine
// has is chosen when it is first asked for; NIBBLE_ISA in the environment forces a lower one.
//
// Codes, scales and products of quantised operands have the same bits on every level.
#pragma once

#include <cstdint>
#include <vector>

namespace nibble {

enum class InstructionSet : uint8_t {
  portable,     // whatever the compiler's baseline is
  avx2,         // AVX2, FMA
  avx512,       // AVX-512 F, BW, VL, DQ
  avx512_vnni,  // 8-bit dot products
  avx512_bf16,  // BF16 dot products
};

// "portable", "avx2", ...: what NIBBLE_ISA takes.
const char* name_of(InstructionSet level);
// The levels of this machine, ascending.
std::vector<InstructionSet> available_instruction_sets();
// The level with this name, or the best for a null or empty one. Throws Error(usage) for a name that is unknown or a
// level that the machine lacks.
InstructionSet select_instruction_set(const char* name);
// The level in use; NIBBLE_ISA is read at the first call.
InstructionSet instruction_set();

}  // namespace nibble
