// What arithmetic_peak.cpp and its instruction-set twins agree on. Plain data only: the twins are compiled with flags
// that the machine may not have, and an inline function of theirs could be picked by the linker for everybody.
// Implemented in peak_portable.cpp, peak_avx2.cpp, peak_avx512.cpp, peak_avx512_vnni.cpp and peak_avx512_bf16.cpp.
#pragma once

#include "quant/isa/arithmetic_peak.h"

namespace nibble::cpu {

// By PeakSequence.
using PeakTable = PeakKernel[peak_sequences];

extern const PeakTable peak_portable;
extern const PeakTable peak_avx2;
extern const PeakTable peak_avx512;
extern const PeakTable peak_avx512_vnni;
extern const PeakTable peak_avx512_bf16;

}  // namespace nibble::cpu

// The compiler must take the register for changed: so that nothing is computed once for all steps, nor left out.
#define NIBBLE_OPAQUE(value) __asm__ volatile("" : "+v"(value))
