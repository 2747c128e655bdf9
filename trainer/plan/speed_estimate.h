// How fast a run is likely to be: a sum of what each part of a step takes at assumed shares of a device's rates. It is
// an estimate, and nothing of it was measured on the device; docs/plan.md has the assumptions.
#pragma once

#include <string>
#include <vector>

#include "trainer/config/run_config.h"
#include "trainer/plan/device_table.h"

namespace nibble {

struct SpeedEstimate {
  struct Part {
    std::string what;    // "products nvfp4"
    double seconds = 0;  // of a step, on one rank
  };
  double step_seconds = 0;
  double tokens_per_second = 0;  // of all ranks
  double peak_flops = 0;         // of all ranks, in BF16
  std::vector<Part> parts;
  std::string basis;
};

// `device` is null for this machine, whose peaks are measured for a tenth of a second on the compute threads of the
// process, all of which belong to one rank. The configuration must be complete, the vocabulary included.
SpeedEstimate estimate_speed(const RunConfig& config, int ranks, const PlannedDevice* device);

}  // namespace nibble
