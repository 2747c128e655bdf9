// The machine's limits, measured beside the kernels that are compared with them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dist/device/arena.h"
#include "quant/isa/arithmetic_peak.h"

namespace nibble {

// What is timed.
struct TimedCase {
  std::string name;            // "peak/fp32_fma"
  double work = 0;             // of one run
  std::string_view unit = {};  // of work * 1e-9 a second: "GFLOP/s"
  std::function<void()> run;
};

// Bytes a second of streams over memory. copy counts what is read and what is written, and is the faster of two ways:
// through the caches, and past them.
struct Bandwidth {
  double read = 0, copy = 0, fill = 0;

  // Of a pass that reads and writes so many bytes, as a copy and a rest.
  double seconds(double bytes_read, double bytes_written) const;
};

// Bytes that a copy in each stream touches: what stays in a core's cache, the activations of a layer, optimizer state.
constexpr std::array<double, 3> stream_bytes = {1 << 20, 12 << 20, 128 << 20};

// Of all compute threads together.
struct MachinePeaks {
  std::array<double, peak_sequences> flops{};              // a second, by PeakSequence; 0: the level lacks it
  std::array<Bandwidth, stream_bytes.size()> bandwidth{};  // by stream_bytes
  double flops_of(PeakSequence sequence) const { return flops[static_cast<size_t>(sequence)]; }
  // Of the stream whose working set is nearest in proportion.
  const Bandwidth& bandwidth_of(double working_set) const;
  // Of BF16 products, by whichever is faster: FP32 multiply-adds or BF16 dot products.
  double bf16_product() const;
};

// The streams' arrays.
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

// For the number of compute threads that is set now. peaks_of() takes the rates of the same cases in the same order.
std::vector<TimedCase> peak_cases(PeakMemory& memory);
MachinePeaks peaks_of(std::span<const TimedCase> cases, std::span<const double> seconds);

}  // namespace nibble
