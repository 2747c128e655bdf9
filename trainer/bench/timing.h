// Times pieces of work on a machine whose speed changes: they take turns, so that the load of others affects all alike,
// and medians over the rounds count. `nibble bench` and the programs of tests/bench measure with it.
#pragma once

#include <functional>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nibble {

// A piece of work that is timed.
struct TimedCase {
  std::string name;            // "peak/fp32_fma"
  double work = 0;             // amount of work in one run
  std::string_view unit = {};  // unit of 1e9 work per second: "GFLOP/s"
  std::function<void()> run;   // empty: the machine cannot do it, and its times are 0
};

// Clocks, in seconds. Processor time is the calling thread's own: time that others take on a shared machine is not part
// of it, nor is the work of other threads.
using TimingClock = double (*)();
double wall_seconds();
// Returns the clock for work on the compute threads: processor time if there is one of them, otherwise wall time.
TimingClock compute_clock();

struct TimingSettings {
  int rounds = 9;
  double sample_seconds = 0;  // least time that a case takes in a round; 0: each case runs once in a round
  // Fewer rounds are made if they would take longer than this, but at least three.
  double budget_seconds = std::numeric_limits<double>::infinity();
  TimingClock clock = compute_clock();
  std::function<void()> finish = {};  // called at the end of a sample; waits for work that runs elsewhere
};

// Returns the seconds of one run, [case][round]. One more round comes first and does not count: it warms up.
std::vector<std::vector<double>> time_by_turns(std::span<const TimedCase> cases, const TimingSettings& settings);

// Returns the upper median. `values` must not be empty.
double median_of(std::vector<double> values);
// Returns the median over the rounds of base[round] / own[round]: how many times as fast as the base a case is.
double median_ratio(const std::vector<double>& base, const std::vector<double>& own);

}  // namespace nibble
