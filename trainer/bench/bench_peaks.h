// The limits of the machine, which are measured together with the kernels that are compared with them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dist/device/arena.h"
#include "quant/isa/arithmetic_peak.h"
#include "trainer/bench/timing.h"

namespace nibble {

// The rates of streams over memory in bytes per second. `copy` counts bytes that are read and bytes that are written;
// it is the faster of two ways, through the caches and past them.
struct Bandwidth {
  double read = 0, copy = 0, fill = 0;

  // Returns the time of a pass that reads and writes so many bytes. The pass is taken as a copy, and a read or a fill
  // of the rest.
  double seconds(double bytes_read, double bytes_written) const;
};

// The sizes in bytes of the streams' copies: they stand for data in a core's cache, for the activations of a layer, and
// for optimizer state.
constexpr std::array<double, 3> stream_bytes = {1 << 20, 12 << 20, 128 << 20};

// The peaks of all compute threads together.
struct MachinePeaks {
  std::array<double, peak_sequences> flops{};              // FLOP/s by PeakSequence; 0 = the level lacks it
  std::array<Bandwidth, stream_bytes.size()> bandwidth{};  // by stream_bytes
  double flops_of(PeakSequence sequence) const { return flops[static_cast<size_t>(sequence)]; }
  // Returns the bandwidth that was measured with the working set closest (by ratio) to `working_set`.
  const Bandwidth& bandwidth_of(double working_set) const;
  // Returns the peak of BF16 GEMMs: by FP32 multiply-adds or by BF16 dot products, whichever is faster.
  double bf16_gemm() const;
};

// The memory of the streams.
class PeakMemory {
 public:
  PeakMemory();
  std::span<std::byte> from() { return {memory_, bytes_ / 2}; }
  std::span<std::byte> to() { return {memory_ + bytes_ / 2, bytes_ / 2}; }

 private:
  Arena arena_;
  size_t bytes_;
  std::byte* memory_ = nullptr;
};

// Makes the cases that measure the peaks, for the number of compute threads that is set now. peaks_of() takes the same
// cases in the same order, with the seconds of one run of each.
std::vector<TimedCase> peak_cases(PeakMemory& memory);
MachinePeaks peaks_of(std::span<const TimedCase> cases, std::span<const double> seconds);

}  // namespace nibble
