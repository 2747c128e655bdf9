// The measuring that the parts of cuda_bench share, and their output: one line of JSON for each figure.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "dist/device/arena.h"
#include "dist/device/cuda_device.h"
#include "quant/format/codec.h"
#include "quant/tensor/tensor_copy.h"
#include "trainer/bench/timing.h"

namespace nibble {

// Calls plan() while the arena measures and again when it has its memory.
template <class Plan>
auto allocate(Arena& arena, const Plan& plan) {
  plan();
  arena.commit();
  return plan();
}

class Bench {
 public:
  explicit Bench(bool smoke) : smoke_(smoke) {}

  // Returns the seconds of one call: the median of five measurements of at least 20 ms each.
  double seconds(const std::function<void()>& work) const {
    const TimedCase timed{.name = {}, .run = work};
    return median_of(time_by_turns({&timed, 1}, {.rounds = smoke_ ? 1 : 5,
                                                 .sample_seconds = smoke_ ? 0 : 0.02,
                                                 .clock = wall_seconds,
                                                 .finish = [] { cuda::synchronize(); }})
                         .front());
  }

  void copy_rate() {
    const int64_t bytes = smoke_ ? 4096 : int64_t{1} << 30;
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

  void compute(const std::string& name, double flops, const std::function<void()>& work) const {
    const double time = seconds(work);
    const double peak = cuda::device_properties().bf16_flops;
    fmt::print(R"({{"name":"{}","milliseconds":{:.4f},"teraflops":{:.2f},"share_of_bf16_peak":{:.3f}}})"
               "\n",
               name, 1e3 * time, flops / time / 1e12, peak > 0 ? flops / time / peak : 0.0);
  }

  // Returns a new arena on the device; forget() frees all of them.
  Arena& memory() { return *arenas_.emplace_back(std::make_unique<Arena>("bench", DeviceKind::cuda)); }
  void forget() { arenas_.clear(); }
  bool smoke() const { return smoke_; }

 private:
  bool smoke_;
  double copy_bytes_a_second_ = 1;
  std::vector<std::unique_ptr<Arena>> arenas_;
};

// Fills deterministic numbers of an activation's size, made on the CPU.
inline void fill(const Tensor& tensor) {
  const HostStage stage(tensor);
  const auto values = stage.as<BFloat16>();
  uint32_t state = 12345;
  for (BFloat16& value : values) {
    state = state * 1664525u + 1013904223u;
    value = bf16_nearest(static_cast<float>(static_cast<int32_t>(state >> 8) - (1 << 23)) * 0x1p-23f);
  }
  stage.finish();
}

// The parts, in files of their own.
void bench_quantisers(Bench& bench);
void bench_operators(Bench& bench);
void bench_gemms(Bench& bench);
void bench_attention(Bench& bench);
void bench_training(Bench& bench);

}  // namespace nibble
