// Measures the peak rate of this machine's arithmetic units.
#pragma once

#include "quant/isa/arithmetic_peak.h"

namespace nibble {

// Returns the processor time of the calling thread in seconds. Time that other processes take on a shared machine is
// not part of it.
double thread_seconds();

// Returns the FLOP/s of one thread while all compute threads of the process run the same sequence, so that clocks and
// units that threads share have their effect. The result is the median of many slices of about a millisecond, measured
// in processor time of the threads; it is 0 if the instruction-set level in use lacks the sequence.
double measured_rate(PeakSequence sequence);

// Returns the peak that utilisation (MFU) is measured against: the FLOP/s of BF16 GEMMs on all compute threads of this
// process, by FP32 multiply-adds or by BF16 dot products, whichever is faster on this machine. No BF16 GEMM can exceed
// it; NVFP4 GEMMs can, because they use 8-bit dot products. The measurement takes about a twentieth of a second.
double measured_peak_flops();

}  // namespace nibble
