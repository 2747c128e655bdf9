// What a person sees while a run goes on: one line a step on standard output, or a live bar on a terminal.
#pragma once

#include <cstdint>
#include <string>

#include "trainer/config/run_config.h"
#include "trainer/report/metrics.h"

namespace nibble {

// "1,234,567"
std::string with_thousands(uint64_t value);
// "45s", "3m20s", "2h05m"
std::string duration_text(double seconds);

class ProgressDisplay {
 public:
  // Automatic: a bar when standard output is a terminal and no launcher stands between (a rank's standard output looks
  // like a terminal even when mpirun's is a file), else plain lines. Ranks other than 0 pass `none`.
  ProgressDisplay(RunConfig::Progress progress, uint64_t total_steps, uint64_t first_step);
  ~ProgressDisplay();
  ProgressDisplay(const ProgressDisplay&) = delete;
  ProgressDisplay& operator=(const ProgressDisplay&) = delete;

  void step(const StepMetrics& metrics, double step_seconds);
  // A line that stands above the bar.
  void line(const std::string& text);

 private:
  void clear_bar();
  RunConfig::Progress progress_;
  uint64_t total_steps_;
  uint64_t first_step_;
  double mean_step_seconds_ = 0;  // exponential average, for the ETA
  bool bar_shown_ = false;
};

}  // namespace nibble
