// The kernels of one operation, by instruction-set level: pointers to functions, or to a struct of them. Each level's
// kernels stand in a source of their own that is compiled for that level; a build for another processor has the
// portable ones only, and leaves out the others' sources.
#pragma once

#include <array>

#include "quant/isa/instruction_set.h"

// What it encloses is part of builds for x86-64 only.
#if defined(__x86_64__)
#define NIBBLE_ON_X86(...) __VA_ARGS__
#else
#define NIBBLE_ON_X86(...)
#endif

namespace nibble {

// A table is written with the names of its levels:
//   constexpr KernelTable<const GemmKernels*> kernels = {
//       .portable = &gemm_portable, NIBBLE_ON_X86(.avx2 = &gemm_avx2, .avx512 = &gemm_avx512)};
// Levels without kernels of their own are left out.
template <class Kernel>
struct KernelTable {
  Kernel portable = nullptr;
  Kernel avx2 = nullptr;
  Kernel avx512 = nullptr;
  Kernel avx512_vnni = nullptr;
  Kernel avx512_bf16 = nullptr;

  // Returns the kernels of the highest level, not above `level`, that has its own; null if there are none.
  constexpr Kernel at(InstructionSet level) const {
    const std::array<Kernel, all_names<InstructionSet>().size()> by_level = {portable, avx2, avx512, avx512_vnni,
                                                                             avx512_bf16};
    auto i = static_cast<size_t>(level);
    while (i > 0 && by_level[i] == nullptr) --i;
    return by_level[i];
  }
};

}  // namespace nibble
