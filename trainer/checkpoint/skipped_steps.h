// Steps that were not applied because their numbers were not finite (trainer/run/step_guard.h).
#pragma once

#include <cstdint>

namespace nibble {

// Counts the steps that a run has skipped so far. The counts are saved in its checkpoints.
struct SkippedSteps {
  uint64_t in_a_row = 0;
  uint64_t total = 0;
  friend bool operator==(const SkippedSteps&, const SkippedSteps&) = default;
};

}  // namespace nibble
