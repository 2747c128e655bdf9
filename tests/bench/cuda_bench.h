// The measuring that the parts of cuda_bench share, and their output: one line of JSON for each figure.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cuda/fill.h"
#include "dist/device/arena.h"
#include "dist/device/cuda_device.h"
#include "trainer/bench/timing.h"

namespace nibble {

// Calls plan() while the arena measures and again when it has its memory.
template <class Plan>
auto allocate(Arena& arena, const Plan& plan) {
  plan();
  arena.commit();
  return plan();
}

// smoke: tiny shapes, to see that everything runs. once: the shapes that are measured, run twice each, for profilers.
enum class BenchExtent { full, once, smoke };

class Bench {
 public:
  explicit Bench(BenchExtent extent) : extent_(extent) {}

  // Returns the seconds of one call: the median of five measurements of at least 20 ms each.
  double seconds(const std::function<void()>& work) const {
    const bool full = extent_ == BenchExtent::full;
    const TimedCase timed{.name = {}, .run = work};
    return median_of(time_by_turns({&timed, 1}, {.rounds = full ? 5 : 1,
                                                 .sample_seconds = full ? 0.02 : 0,
                                                 .clock = wall_seconds,
                                                 .finish = [] { cuda::synchronize(); }})
                         .front());
  }

  void copy_rate() {
    const int64_t bytes = smoke() ? 4096 : int64_t{1} << 30;
    Arena& arena = memory();
    const auto pair = allocate(arena, [&] {
      return std::vector{allocate_tensor(arena, DType::u8, {bytes}), allocate_tensor(arena, DType::u8, {bytes})};
    });
    const double time = seconds([&] { copy(pair[0], pair[1]); });
    copy_bytes_a_second_ = 2.0 * static_cast<double>(bytes) / time;
    fmt::print(R"({{"name":"copy","milliseconds":{:.4f},"gigabytes_per_second":{:.1f}}})"
               "\n",
               1e3 * time, copy_bytes_a_second_ / 1e9);
  }

  void stream(const std::string& name, double bytes, const std::function<void()>& work) const {
    const double time = seconds(work);
    fmt::print(R"({{"name":"{}","milliseconds":{:.4f},"gigabytes_per_second":{:.1f},"share_of_copy":{:.3f}}})"
               "\n",
               name, 1e3 * time, bytes / time / 1e9, bytes / time / copy_bytes_a_second_);
  }

  // With `tokens`, tokens a second are printed, too.
  void compute(const std::string& name, double flops, const std::function<void()>& work, int64_t tokens = 0) const {
    const double time = seconds(work);
    const double peak = cuda::device_properties().bf16_flops;
    const std::string rate =
        tokens == 0 ? "" : fmt::format(R"(,"tokens_per_second":{:.0f})", static_cast<double>(tokens) / time);
    fmt::print(R"({{"name":"{}","milliseconds":{:.4f}{},"teraflops":{:.2f},"share_of_bf16_peak":{:.3f}}})"
               "\n",
               name, 1e3 * time, rate, flops / time / 1e12, peak > 0 ? flops / time / peak : 0.0);
  }

  // Runs one case. An error of nibble is printed, and the cases after it run: one of them may not fit the GPU's memory.
  void attempt(const std::string& name, const std::function<void()>& work) {
    try {
      work();
    } catch (const Error& error) {
      fmt::print("{}\n", nlohmann::json{{"name", name}, {"error", error.what()}}.dump());
      worst_ = error.code();
    }
    forget();
  }
  // The code of the last error that attempt() met.
  ExitCode worst() const { return worst_; }

  // Returns a new arena on the device; forget() frees all of them.
  Arena& memory() { return *arenas_.emplace_back(std::make_unique<Arena>("bench", DeviceKind::cuda)); }
  void forget() { arenas_.clear(); }
  bool smoke() const { return extent_ == BenchExtent::smoke; }

 private:
  BenchExtent extent_;
  ExitCode worst_ = ExitCode::ok;
  double copy_bytes_a_second_ = 1;
  std::vector<std::unique_ptr<Arena>> arenas_;
};

// The parts, in files of their own. The first prints what the others run on: device, libraries and who multiplies.
void describe(Bench& bench);
void bench_quantisers(Bench& bench);
void bench_operators(Bench& bench);
void bench_gemms(Bench& bench);
void bench_attention(Bench& bench);
void bench_training(Bench& bench);

}  // namespace nibble
