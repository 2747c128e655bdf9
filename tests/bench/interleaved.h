// Compares the speed of contenders on a machine whose speed changes: they take turns within one run, and the result is
// the median over the rounds of their ratio to one of them. On one thread the time is the thread's processor time,
// which a neighbour cannot take; on several it is wall-clock time.
#pragma once

#include <fmt/format.h>
#include <time.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

namespace nibble::bench {

struct Contender {
  std::string name;
  double operations = 0;  // of one run, for the rate
  std::function<void()> run;
};

struct Timing {
  double seconds = 0;  // median
  double ratio = 0;    // median over the rounds of (seconds of the base in the round) / (own seconds)
};

inline double seconds_of(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

inline double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<long>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

// Runs one more round than asked for: the first one warms up.
inline std::vector<Timing> compare(const std::vector<Contender>& contenders, size_t base, int rounds, bool one_thread) {
  const clockid_t clock = one_thread ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC;
  std::vector<std::vector<double>> seconds(contenders.size());
  for (int round = 0; round <= rounds; ++round) {
    for (size_t i = 0; i < contenders.size(); ++i) {
      const double start = seconds_of(clock);
      contenders[i].run();
      if (round > 0) seconds[i].push_back(seconds_of(clock) - start);
    }
  }
  std::vector<Timing> timings;
  for (const std::vector<double>& own : seconds) {
    std::vector<double> ratios;
    for (size_t round = 0; round < own.size(); ++round) ratios.push_back(seconds[base][round] / own[round]);
    timings.push_back({median(own), median(ratios)});
  }
  return timings;
}

inline void print(const std::vector<Contender>& contenders, const std::vector<Timing>& timings) {
  for (size_t i = 0; i < contenders.size(); ++i) {
    fmt::print("  {:<28} {:9.3f} ms {:8.0f} G/s {:8.2f}x\n", contenders[i].name, timings[i].seconds * 1e3,
               contenders[i].operations / timings[i].seconds * 1e-9, timings[i].ratio);
  }
}

}  // namespace nibble::bench
