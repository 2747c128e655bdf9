#include "trainer/compute/measured_peak.h"

#include <algorithm>
#include <ctime>
#include <vector>

#include "dist/device/thread_pool.h"

namespace nibble {
namespace {

constexpr size_t slices_per_thread = 16;
constexpr double slice_seconds = 1e-3;

double rate_of_slice(const PeakKernel& kernel, int64_t steps) {
  const double start = thread_seconds();
  kernel.run(steps);
  return kernel.flops_per_step * static_cast<double>(steps) / std::max(thread_seconds() - start, 1e-9);
}

}  // namespace

double thread_seconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

double measured_rate(PeakSequence sequence) {
  const PeakKernel kernel = peak_kernel(sequence, instruction_set());
  if (kernel.run == nullptr) return 0;
  constexpr int64_t first_steps = 10000;
  rate_of_slice(kernel, first_steps);  // wakes the wide units
  const double rate = rate_of_slice(kernel, first_steps);
  const auto steps = std::max<int64_t>(first_steps, static_cast<int64_t>(rate * slice_seconds / kernel.flops_per_step));
  std::vector<double> rates(slices_per_thread * static_cast<size_t>(compute_threads()));
  parallel_for(rates.size(), 1, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) rates[i] = rate_of_slice(kernel, steps);
  });
  const auto middle = rates.begin() + static_cast<ptrdiff_t>(rates.size() / 2);
  std::nth_element(rates.begin(), middle, rates.end());
  return *middle;
}

double measured_peak_flops() {
  const double rate = std::max(measured_rate(PeakSequence::fp32_fma), measured_rate(PeakSequence::bf16_dot));
  return rate * compute_threads();
}

}  // namespace nibble
