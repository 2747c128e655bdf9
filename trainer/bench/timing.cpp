#include "trainer/bench/timing.h"

#include <algorithm>
#include <chrono>

#include "dist/base/error.h"
#include "dist/base/stopwatch.h"
#include "dist/device/thread_pool.h"
#include "trainer/compute/measured_peak.h"

namespace nibble {
namespace {

// Returns the seconds of one of `runs` runs.
double sample(const TimedCase& timed, int runs, const TimingSettings& settings) {
  const double start = settings.clock();
  for (int run = 0; run < runs; ++run) timed.run();
  if (settings.finish) settings.finish();
  return std::max((settings.clock() - start) / runs, 1e-9);
}

// Warms a case up, and returns how often it must run in a sample.
int runs_in_sample(const TimedCase& timed, const TimingSettings& settings) {
  if (!timed.run) return 1;
  sample(timed, 1, settings);
  if (settings.sample_seconds == 0) return 1;
  constexpr double most_runs = 1e5;
  return 1 + static_cast<int>(std::min(settings.sample_seconds / sample(timed, 1, settings), most_runs));
}

}  // namespace

double wall_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

TimingClock compute_clock() {
  return compute_threads() == 1 ? thread_seconds : wall_seconds;
}

std::vector<std::vector<double>> time_by_turns(std::span<const TimedCase> cases, const TimingSettings& settings) {
  std::vector<int> runs;
  runs.reserve(cases.size());
  for (const TimedCase& timed : cases) runs.push_back(runs_in_sample(timed, settings));
  std::vector<std::vector<double>> seconds(cases.size());
  const Stopwatch spent;
  constexpr int fewest_rounds = 3;
  for (int round = 0; round < settings.rounds; ++round) {
    if (round >= fewest_rounds && spent.seconds() * (round + 1) / round > settings.budget_seconds) break;
    for (size_t i = 0; i < cases.size(); ++i) {
      seconds[i].push_back(cases[i].run ? sample(cases[i], runs[i], settings) : 0);
    }
  }
  return seconds;
}

double median_of(std::vector<double> values) {
  NIBBLE_CHECK(!values.empty(), "the median of nothing");
  const auto middle = values.begin() + static_cast<ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

double median_ratio(const std::vector<double>& base, const std::vector<double>& own) {
  std::vector<double> ratios;
  ratios.reserve(own.size());
  for (size_t round = 0; round < own.size(); ++round) ratios.push_back(base[round] / own[round]);
  return median_of(ratios);
}

}  // namespace nibble
