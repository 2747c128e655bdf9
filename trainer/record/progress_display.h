// Shows the progress of a run on standard output: one line for every log.every steps, or a live bar on a terminal.
#pragma once

#include <cstdint>
#include <string>

#include "trainer/config/run_config.h"
#include "trainer/report/metrics.h"

namespace nibble {

// What the progress shows of a step.
struct StepProgress {
  StepMetrics metrics;
  uint64_t total_steps = 0;
  double remaining_seconds = 0;  // until the last step
};

// Returns one line with all figures.
std::string progress_line(const StepProgress& progress);
// Returns a bar with figures, at most `width` characters. Where it is narrow, figures are left out, the rate and the
// remaining time last.
std::string progress_bar(const StepProgress& progress, size_t width);

class ProgressDisplay {
 public:
  // `log.progress: auto` means a bar if standard output is a terminal and the process was started without a launcher,
  // else plain lines: under mpirun, standard output looks like a terminal even if it goes to a file. Nothing is shown
  // where `shown` is false, as on ranks other than 0.
  ProgressDisplay(const RunConfig& config, uint64_t first_step, bool shown);
  ~ProgressDisplay();
  ProgressDisplay(const ProgressDisplay&) = delete;
  ProgressDisplay& operator=(const ProgressDisplay&) = delete;

  void step(const StepMetrics& metrics, double step_seconds);
  // Prints a line above the bar.
  void line(const std::string& text);

 private:
  void clear_bar();

  RunConfig::Progress progress_;
  uint64_t every_;
  uint64_t total_steps_;
  uint64_t first_step_;
  double tokens_per_step_;
  double mean_step_seconds_ = 0;   // exponential average, for the remaining time
  double seconds_since_line_ = 0;  // of the steps since the last line
  uint64_t steps_since_line_ = 0;
  bool bar_shown_ = false;
};

}  // namespace nibble
