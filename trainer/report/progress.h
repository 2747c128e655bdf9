// Shows the progress of a run on standard output: one line for each step, or a live bar on a terminal.
#pragma once

#include <cstdint>
#include <string>

#include "trainer/config/run_config.h"
#include "trainer/report/metrics.h"

namespace nibble {

// Returns a duration such as "45s", "3m20s" or "2h05m".
std::string duration_text(double seconds);

class ProgressDisplay {
 public:
  // `automatic` means a bar if standard output is a terminal and the process was started without a launcher, else plain
  // lines: under mpirun, standard output looks like a terminal even if it goes to a file. Ranks other than 0 pass
  // `none`.
  ProgressDisplay(RunConfig::Progress progress, uint64_t total_steps, uint64_t first_step);
  ~ProgressDisplay();
  ProgressDisplay(const ProgressDisplay&) = delete;
  ProgressDisplay& operator=(const ProgressDisplay&) = delete;

  void step(const StepMetrics& metrics, double step_seconds);
  // Prints a line above the bar.
  void line(const std::string& text);

 private:
  void clear_bar();
  RunConfig::Progress progress_;
  uint64_t total_steps_;
  uint64_t first_step_;
  double mean_step_seconds_ = 0;  // exponential average, for the remaining time
  bool bar_shown_ = false;
};

}  // namespace nibble
