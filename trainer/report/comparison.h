// Compares the loss of a run with that of a baseline which saw the same data in the same order.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "trainer/config/run_config.h"
#include "trainer/report/metrics.h"

namespace nibble {

struct ComparedRun {
  std::filesystem::path directory;
  std::string name;  // last part of the directory's name
  RunConfig config;
  RunHistory history;
};
ComparedRun load_run(const std::filesystem::path& directory);

// The mean difference of the losses over a window of steps that both runs made. Each step sees the same tokens in both
// runs, so the noise of the data cancels in the differences. The standard error is that of the differences, which is
// smaller than that of the losses.
struct Gap {
  uint64_t tokens = 0;  // at the end of the window
  double base_loss = 0;
  double run_loss = 0;
  double absolute = 0;        // run - base, nats
  double relative = 0;        // absolute / base
  double standard_error = 0;  // of `absolute`, from the paired differences; 0 when there is one step only
  uint64_t steps = 0;         // in the window
};

struct Comparison {
  std::vector<Gap> fractions;     // training loss at 10, 25, 50, 75, 100 % of the tokens; means over 5 % of the steps
  std::optional<Gap> validation;  // the last validation that both runs made at the same step
  double throughput_ratio = 0;    // median tokens/s of the run / of the baseline
  uint64_t common_steps = 0;
  // The gap that is judged: that of the validation if there is one, else that at the end of training.
  const Gap& final_gap() const { return validation ? *validation : fractions.back(); }
};

// Returns the reasons why the losses of two runs cannot be compared step by step: they differ in data, seed, batch,
// schedule, optimizer or model.
std::vector<std::string> comparison_obstacles(const ComparedRun& base, const ComparedRun& run);

// Throws bad_data if the runs have no step in common.
Comparison compare_runs(const ComparedRun& base, const ComparedRun& run);

// Returns the bias-corrected exponential moving average over about `span` points. A value that is not finite (a step
// that was not applied) is skipped; the average is NaN before the first finite value.
std::vector<double> smoothed(const std::vector<double>& values, double span);

}  // namespace nibble
