// What this machine's arithmetic units can do, measured.
#pragma once

#include "quant/isa/arithmetic_peak.h"

namespace nibble {

// Processor time of the calling thread, in seconds: what others take on a shared machine does not count.
double thread_seconds();

// FLOP/s of one thread while all compute threads of the process do the same, so that shared clocks and units count.
// Median of many slices of about a millisecond, by the threads' processor time. 0 where the instruction-set level in
// use lacks the sequence.
double measured_rate(PeakSequence sequence);

// The peak that utilisation (MFU) is measured against: FLOP/s of BF16 products on all compute threads of this process,
// by whichever is faster here, FP32 multiply-adds or BF16 dot products. No BF16 product can exceed it; NVFP4 products,
// which are made of 8-bit dot products, can. Takes about a twentieth of a second.
double measured_peak_flops();

}  // namespace nibble
