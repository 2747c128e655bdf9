// The tables that arithmetic_peak.cpp and the sources of the instruction-set levels share. They hold plain data only:
// those sources are compiled with flags that the machine may not have, and the linker could pick an inline function of
// theirs for everybody. Implemented in peak_portable.cpp, peak_avx2.cpp, peak_avx512.cpp, peak_avx512_vnni.cpp and
// peak_avx512_bf16.cpp.
#pragma once

#include "quant/isa/arithmetic_peak.h"

namespace nibble::cpu {

// The kernels of one level, indexed by PeakSequence.
using PeakTable = PeakKernel[peak_sequences];

extern const PeakTable peak_portable;
extern const PeakTable peak_avx2;
extern const PeakTable peak_avx512;
extern const PeakTable peak_avx512_vnni;
extern const PeakTable peak_avx512_bf16;

}  // namespace nibble::cpu

// Makes the compiler believe that the register has changed, so that nothing is computed once for all steps, nor left
// out.
#define NIBBLE_OPAQUE(value) __asm__ volatile("" : "+v"(value))
