#include "quant/isa/arithmetic_peak.h"

#include "quant/isa/kernel_table.h"
#include "quant/isa/peak_kernels.h"

namespace nibble {

PeakKernel peak_kernel(PeakSequence sequence, InstructionSet level) {
  const auto of = [&](const cpu::PeakTable& table) -> const PeakKernel* {
    const PeakKernel& kernel = table[static_cast<size_t>(sequence)];
    return kernel.run != nullptr ? &kernel : nullptr;
  };
  const KernelTable<const PeakKernel*> kernels = {
      .portable = of(cpu::peak_portable),
      NIBBLE_ON_X86(.avx2 = of(cpu::peak_avx2), .avx512 = of(cpu::peak_avx512),
                    .avx512_vnni = of(cpu::peak_avx512_vnni), .avx512_bf16 = of(cpu::peak_avx512_bf16))};
  const PeakKernel* best = kernels.at(level);
  return best != nullptr ? *best : PeakKernel{};
}

}  // namespace nibble
