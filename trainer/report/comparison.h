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

// The difference of the losses of two runs, as a mean over a window of token counts. Runs are paired by the tokens that
// they have trained on, and only at counts that both have. Where the batches are equal too, the two losses of a pair
// are those of the same tokens, so the noise of the data cancels.
struct Gap {
  uint64_t tokens = 0;  // at the end of the window
  double base_loss = 0;
  double run_loss = 0;
  double absolute = 0;  // run - base, nats
  double relative = 0;  // absolute / base
  uint64_t steps = 0;   // pairs in the window
};

// A validation that both runs made after the same number of tokens, of the same windows of text.
struct ValidationGap {
  std::string set;  // "" where the sets have no names
  Gap gap;
};

// How long the run takes to the loss at which the baseline ends, counted from the fork.
struct TimeToEqualLoss {
  bool of_validation = false;        // the curves are validations, joined by straight lines; else smoothed training
  double loss = 0;                   // at which the baseline's curve ends
  std::optional<double> tokens;      // after which the run's curve first reaches it; nothing if it does not
  std::optional<double> time_ratio;  // the run's time to there / the baseline's time to its end, by median tokens/s
};

struct Comparison {
  std::vector<Gap> fractions;  // training loss at 10, 25, 50, 75, 100 % of the pairs; means over 5 % of them
  // All common validations behind the fork, ascending in tokens; those of one token count begin with the first set.
  std::vector<ValidationGap> validations;
  std::optional<Gap> training_end;  // training loss at the end, over pairs behind the fork; nothing if there are none
  std::string
      validation_note;  // why there are no validations although both runs made some; "" where that needs no word
  // The tokens up to which the runs are one: their losses have the same bits from the first step to there. 0 = none.
  uint64_t fork_tokens = 0;
  double throughput_ratio = 0;  // median tokens/s of the run / of the baseline, behind the fork where both go on
  uint64_t common_steps = 0;    // token counts that both have
  std::optional<TimeToEqualLoss> equal_loss;  // nothing if the baseline has no losses behind the fork

  // Returns the last validation, of the first set; nothing if none lies behind the fork.
  std::optional<Gap> validation() const;
  // Returns the last validation of each set.
  std::vector<ValidationGap> last_validations() const;
  // Returns the gap that is judged: the last validation, or else that at the end of training behind the fork, or else
  // that at the end of two equal runs.
  Gap final_gap() const;
};

// Returns all differences of configuration but run.dir.
std::vector<ConfigDifference> differences_of(const ComparedRun& base, const ComparedRun& run);

// Returns the reasons why the losses of two runs cannot be compared token by token: they differ in data, seed, batch,
// schedule, optimizer or model.
std::vector<std::string> comparison_obstacles(const ComparedRun& base, const ComparedRun& run);

// Throws bad_data if the runs have no count of tokens in common.
Comparison compare_runs(const ComparedRun& base, const ComparedRun& run);

// Returns the bias-corrected exponential moving average over about `span` points. A value that is not finite (a step
// that was not applied) is skipped; the average is NaN before the first finite value.
std::vector<double> smoothed(const std::vector<double>& values, double span);
constexpr double smoothing_share = 0.03;  // the span of the curves that are drawn, as a share of their points

// The losses of a pair of steps after the same number of tokens.
struct PairedStep {
  uint64_t tokens;
  double base;
  double run;
};
std::vector<PairedStep> paired_steps(const ComparedRun& base, const ComparedRun& run);

}  // namespace nibble
