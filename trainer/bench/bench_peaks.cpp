#include "trainer/bench/bench_peaks.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "dist/base/error.h"
#include "dist/base/vectorize.h"
#include "dist/device/thread_pool.h"

namespace nibble {
namespace {

constexpr size_t stream_grain = size_t{128} << 10;  // bytes
constexpr std::array<const char*, stream_bytes.size()> stream_names = {"peak/cache/", "peak/activations/",
                                                                       "peak/memory/"};
constexpr size_t ways = 4;  // read, copy, copy past the caches, fill

// Reads two streams at once, because prefetchers follow them better than one.
NIBBLE_VECTORIZE uint64_t sum_of_words(const uint64_t* words, size_t count) {
  uint64_t first = 0;
  uint64_t second = 0;
  const uint64_t* other = words + count / 2;
  for (size_t i = 0; i < count / 2; ++i) {
    first += words[i];
    second += other[i];
  }
  return first + second;
}

void read_stream(std::span<const std::byte> data) {
  parallel_for(data.size(), stream_grain, [&](size_t begin, size_t end) {
    const auto* words = reinterpret_cast<const uint64_t*>(data.data() + begin);
    const uint64_t sum = sum_of_words(words, (end - begin) / sizeof(uint64_t));
    __asm__ volatile("" : : "r"(sum));  // keeps the compiler from removing the unused sum
  });
}

void copy_stream(std::span<const std::byte> from, std::span<std::byte> to) {
  parallel_for(from.size(), stream_grain,
               [&](size_t begin, size_t end) { std::memcpy(to.data() + begin, from.data() + begin, end - begin); });
}

#if defined(__SSE2__)
// Copies with four streams of stores that do not first read the memory that they overwrite.
void copy_past_caches(std::span<const std::byte> from, std::span<std::byte> to) {
  constexpr size_t streams = 4;
  constexpr size_t line = 64;
  parallel_for(from.size(), stream_grain, [&](size_t begin, size_t end) {
    const size_t part = (end - begin) / streams;
    for (size_t at = 0; at < part; at += line) {
      for (size_t stream = 0; stream < streams; ++stream) {
        const size_t offset = begin + stream * part + at;
        for (size_t i = offset; i < offset + line; i += sizeof(__m128i)) {
          _mm_stream_si128(reinterpret_cast<__m128i*>(to.data() + i),
                           _mm_load_si128(reinterpret_cast<const __m128i*>(from.data() + i)));
        }
      }
    }
    _mm_sfence();
  });
}
#endif

void fill_stream(std::span<std::byte> data) {
  parallel_for(data.size(), stream_grain,
               [&](size_t begin, size_t end) { std::memset(data.data() + begin, 1, end - begin); });
}

TimedCase sequence_case(PeakSequence sequence) {
  const PeakKernel kernel = peak_kernel(sequence, instruction_set());
  TimedCase result{.name = fmt::format("peak/{}", name_of(sequence)), .unit = "GFLOP/s", .run = {}};
  if (kernel.run == nullptr) return result;
  constexpr int64_t steps = 4000;
  const auto threads = static_cast<size_t>(compute_threads());
  constexpr size_t chunks = 8;  // for each thread, so that a thread which starts late gets fewer
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
#if defined(__SSE2__)
  cases.push_back({prefix + "copy_streaming", 2 * bytes, "GB/s", [from, to] { copy_past_caches(from, to); }});
#else
  cases.push_back({prefix + "copy_streaming", 0, "GB/s", {}});
#endif
  cases.push_back({prefix + "fill", bytes, "GB/s", [to] { fill_stream(to); }});
}

}  // namespace

double Bandwidth::seconds(double bytes_read, double bytes_written) const {
  const double paired = std::min(bytes_read, bytes_written);
  return 2 * paired / copy + (bytes_read - paired) / read + (bytes_written - paired) / fill;
}

double MachinePeaks::bf16_gemm() const {
  return std::max(flops_of(PeakSequence::fp32_fma), flops_of(PeakSequence::bf16_dot));
}

const Bandwidth& MachinePeaks::bandwidth_of(double working_set) const {
  size_t nearest = 0;
  for (size_t i = 1; i < stream_bytes.size(); ++i) {
    if (working_set * working_set > stream_bytes[i - 1] * stream_bytes[i]) nearest = i;
  }
  return bandwidth[nearest];
}

PeakMemory::PeakMemory() : arena_("streams"), bytes_(static_cast<size_t>(stream_bytes.back())) {
  memory_ = static_cast<std::byte*>(planned(arena_, [&] { return arena_.allocate(bytes_); }));
  fill_stream({memory_, bytes_});  // pages that were never written would all be the same page of zeros
}

std::vector<TimedCase> peak_cases(PeakMemory& memory) {
  std::vector<TimedCase> cases;
  cases.reserve(peak_sequences + ways * stream_bytes.size());
  for (int sequence = 0; sequence < peak_sequences; ++sequence) {
    cases.push_back(sequence_case(static_cast<PeakSequence>(sequence)));
  }
  for (size_t i = 0; i < stream_bytes.size(); ++i) {
    const auto half = static_cast<size_t>(stream_bytes[i]) / 2;
    add_streams(cases, stream_names[i], memory.from().first(half), memory.to().first(half));
  }
  return cases;
}

MachinePeaks peaks_of(std::span<const TimedCase> cases, std::span<const double> seconds) {
  NIBBLE_CHECK(cases.size() == peak_sequences + ways * stream_bytes.size() && seconds.size() == cases.size(),
               "one time a peak");
  MachinePeaks peaks;
  const auto rate = [&](size_t index) { return cases[index].run ? cases[index].work / seconds[index] : 0.0; };
  for (size_t i = 0; i < peak_sequences; ++i) peaks.flops[i] = rate(i);
  for (size_t i = 0; i < stream_bytes.size(); ++i) {
    const size_t first = peak_sequences + ways * i;
    peaks.bandwidth[i] = {rate(first), std::max(rate(first + 1), rate(first + 2)), rate(first + 3)};
  }
  return peaks;
}

}  // namespace nibble
