// The arithmetic peak that utilisation is measured against.
#pragma once

namespace nibble {

// FLOP/s of this process's fastest BF16 GEMM (512 cubed, all compute threads, best of several), about a tenth of a
// second. Measured while the other ranks on the node do the same, so that shared clocks and caches count.
double measured_peak_flops();

}  // namespace nibble
