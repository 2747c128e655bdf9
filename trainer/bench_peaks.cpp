#include "trainer/bench_peaks.h"

#include <algorithm>
#include <cstring>

#include "dist/error.h"
#include "dist/thread_pool.h"
#include "dist/vectorize.h"

namespace nibble {
namespace {

constexpr size_t small_stream = size_t{6} << 20;   // bytes; a copy touches twice as much
constexpr size_t large_stream = size_t{64} << 20;  // bytes
constexpr size_t stream_grain = size_t{512} << 10;

NIBBLE_VECTORIZE uint64_t sum_of_words(const uint64_t* words, size_t count) {
  uint64_t sum = 0;
  for (size_t i = 0; i < count; ++i) sum += words[i];
  return sum;
}

void read_stream(std::span<const std::byte> data) {
  parallel_for(data.size(), stream_grain, [&](size_t begin, size_t end) {
    const auto* words = reinterpret_cast<const uint64_t*>(data.data() + begin);
    const uint64_t sum = sum_of_words(words, (end - begin) / sizeof(uint64_t));
    __asm__ volatile("" : : "r"(sum));  // the compiler must take it for used
  });
}

void copy_stream(std::span<const std::byte> from, std::span<std::byte> to) {
  parallel_for(from.size(), stream_grain,
               [&](size_t begin, size_t end) { std::memcpy(to.data() + begin, from.data() + begin, end - begin); });
}

void fill_stream(std::span<std::byte> data) {
  parallel_for(data.size(), stream_grain,
               [&](size_t begin, size_t end) { std::memset(data.data() + begin, 1, end - begin); });
}

constexpr std::array<const char*, peak_sequences> sequence_names = {"peak/fp32_fma", "peak/bf16_dot", "peak/int8_dot",
                                                                    "peak/nvfp4_block"};

TimedCase sequence_case(PeakSequence sequence) {
  const PeakKernel kernel = peak_kernel(sequence, instruction_set());
  TimedCase result{.name = sequence_names[static_cast<size_t>(sequence)], .unit = "GFLOP/s", .run = {}};
  if (kernel.run == nullptr) return result;
  constexpr int64_t steps = 4000;
  const auto threads = static_cast<size_t>(compute_threads());
  constexpr size_t chunks = 8;  // of a thread: one that starts late gets fewer
  result.work = kernel.flops_per_step * static_cast<double>(steps) * static_cast<double>(threads * chunks);
  result.run = [kernel, threads] {
    parallel_for(threads * chunks, 1, [&](size_t begin, size_t end) {
      for (size_t i = begin; i < end; ++i) kernel.run(steps);
    });
  };
  return result;
}

void add_streams(std::vector<TimedCase>& cases, const std::string& prefix, std::span<std::byte> from,
                 std::span<std::byte> to) {
  const auto bytes = static_cast<double>(from.size());
  cases.push_back({prefix + "read", bytes, "GB/s", [from] { read_stream(from); }});
  cases.push_back({prefix + "copy", 2 * bytes, "GB/s", [from, to] { copy_stream(from, to); }});
  cases.push_back({prefix + "fill", bytes, "GB/s", [to] { fill_stream(to); }});
}

}  // namespace

double Bandwidth::seconds(double bytes_read, double bytes_written) const {
  const double paired = std::min(bytes_read, bytes_written);
  return 2 * paired / copy + (bytes_read - paired) / read + (bytes_written - paired) / fill;
}

double MachinePeaks::bf16_product() const {
  return std::max(flops_of(PeakSequence::fp32_fma), flops_of(PeakSequence::bf16_dot));
}

PeakMemory::PeakMemory() : half_(large_stream), words_(2 * large_stream) {}

std::vector<TimedCase> peak_cases(PeakMemory& memory) {
  std::vector<TimedCase> cases;
  for (int sequence = 0; sequence < peak_sequences; ++sequence) {
    cases.push_back(sequence_case(static_cast<PeakSequence>(sequence)));
  }
  add_streams(cases, "peak/activations/", memory.from().first(small_stream), memory.to().first(small_stream));
  add_streams(cases, "peak/memory/", memory.from(), memory.to());
  return cases;
}

MachinePeaks peaks_of(std::span<const TimedCase> cases, std::span<const double> seconds) {
  NIBBLE_CHECK(cases.size() == peak_sequences + 6 && seconds.size() == cases.size(), "one time a peak");
  MachinePeaks peaks;
  const auto rate = [&](size_t index) { return cases[index].run ? cases[index].work / seconds[index] : 0.0; };
  for (size_t i = 0; i < peak_sequences; ++i) peaks.flops[i] = rate(i);
  peaks.activations = {rate(peak_sequences), rate(peak_sequences + 1), rate(peak_sequences + 2)};
  peaks.memory = {rate(peak_sequences + 3), rate(peak_sequences + 4), rate(peak_sequences + 5)};
  return peaks;
}

}  // namespace nibble
