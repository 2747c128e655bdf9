#include "quant/isa/arithmetic_peak.h"

#include "quant/isa/peak_kernels.h"

namespace nibble {

PeakKernel peak_kernel(PeakSequence sequence, InstructionSet level) {
  PeakKernel best = cpu::peak_portable[static_cast<int>(sequence)];
  const auto improve = [&](InstructionSet needed, const cpu::PeakTable& table) {
    const PeakKernel& kernel = table[static_cast<int>(sequence)];
    if (level >= needed && kernel.run != nullptr) best = kernel;
  };
#if defined(__x86_64__)
  improve(InstructionSet::avx2, cpu::peak_avx2);
  improve(InstructionSet::avx512, cpu::peak_avx512);
  improve(InstructionSet::avx512_vnni, cpu::peak_avx512_vnni);
  improve(InstructionSet::avx512_bf16, cpu::peak_avx512_bf16);
#endif
  return best;
}

}  // namespace nibble
