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

#include "quant/arithmetic_peak.h"

namespace nibble {

// What is timed.
struct TimedCase {
  std::string name;            // "peak/fp32_fma"
  double work = 0;             // of one run
  std::string_view unit = {};  // of work * 1e-9 a second: "GFLOP/s"
  std::function<void()> run;
};

// Bytes a second of streams over memory. copy counts what is read and what is written.
struct Bandwidth {
  double read = 0, copy = 0, fill = 0;

  // Of a pass that reads and writes so many bytes, as a copy and a rest.
  double seconds(double bytes_read, double bytes_written) const;
};

// Of all compute threads together.
struct MachinePeaks {
  std::array<double, peak_sequences> flops{};  // a second, by PeakSequence; 0: the level lacks it
  Bandwidth activations;  // working sets of some 12 MB, as activations and gradients of a layer are
  Bandwidth memory;       // of some 128 MB, as optimizer state is
  double flops_of(PeakSequence sequence) const { return flops[static_cast<size_t>(sequence)]; }
  // Of BF16 products, by whichever is faster: FP32 multiply-adds or BF16 dot products.
  double bf16_product() const;
};

// A pass that touches more is measured against MachinePeaks::memory.
constexpr double activation_bytes = 48.0 * (1 << 20);

// The streams' arrays.
class PeakMemory {
 public:
  PeakMemory();
  std::span<std::byte> from() { return std::span(words_).first(half_); }
  std::span<std::byte> to() { return std::span(words_).subspan(half_); }

 private:
  size_t half_;
  std::vector<std::byte> words_;
};

// For the number of compute threads that is set now. peaks_of() takes the rates of the same cases in the same order.
std::vector<TimedCase> peak_cases(PeakMemory& memory);
MachinePeaks peaks_of(std::span<const TimedCase> cases, std::span<const double> seconds);

}  // namespace nibble
