// Sequences of register-only instructions that reach the processor's limits. Utilisation and the bench's percentages
// are measured against them. Each sequence is written once for each instruction-set level, with enough independent
// chains to keep every unit busy; trainer/compute/measured_peak.h times them.
#pragma once

#include <cstdint>

#include "dist/base/enum_names.h"
#include "quant/isa/instruction_set.h"

namespace nibble {

enum class PeakSequence : uint8_t {
  // FP32 multiply-add; on the portable level a multiplication and an addition. 2 flops a lane.
  fp32_fma,
  // VDPBF16PS: BF16 products, FP32 sums.
  bf16_dot,
  // The fastest 8-bit product with 32-bit sums: VPDPBUSD, or VPMADDUBSW, VPADDW and VPMADDWD.
  int8_dot,
  // The work of the exact NVFP4 GEMM for a block of 16 in every lane once its operands are unpacked: the 8-bit dot
  // product, its conversion to FP32, the product of the two scales, one multiply-add. 32 flops a lane.
  nvfp4_block,
};
constexpr auto enum_names(PeakSequence) {
  return std::to_array<EnumName<PeakSequence>>({{PeakSequence::fp32_fma, "fp32_fma"},
                                                {PeakSequence::bf16_dot, "bf16_dot"},
                                                {PeakSequence::int8_dot, "int8_dot"},
                                                {PeakSequence::nvfp4_block, "nvfp4_block"}});
}
constexpr int peak_sequences = all_names<PeakSequence>().size();

struct PeakKernel {
  double flops_per_step = 0;  // multiply-adds count twice, and only those of the product: not scales and conversions
  void (*run)(int64_t steps) = nullptr;  // null: the level has no such instructions
};

// Returns the kernel of the best level that is not above `level`.
PeakKernel peak_kernel(PeakSequence sequence, InstructionSet level);

}  // namespace nibble
