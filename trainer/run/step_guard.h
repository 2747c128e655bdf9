// What becomes of an optimizer step by whether its numbers are finite. A step is a pure function of the weights, the
// data and the run's seed: computed again from the same inputs, a numerical problem comes back bit for bit, and a
// transient fault of the machine does not. So a step that is not finite is computed once more, then skipped, until the
// budget of skipped steps is used up. Nothing here knows ranks or models: the decisions follow from the outcomes alone.
#pragma once

#include <cstdint>

#include "trainer/checkpoint/skipped_steps.h"

namespace nibble {

// Most skipped steps that a run may have. 0 allows none.
struct SkipBudget {
  uint64_t in_a_row = 0;
  uint64_t total = 0;
};

enum class StepDecision : uint8_t {
  apply,    // update the weights
  retry,    // compute the step once more from the same inputs
  skip,     // leave weights and moments as they are and go on
  give_up,  // skipped too, and the budget is exceeded
};

class StepGuard {
 public:
  explicit StepGuard(SkipBudget budget, SkippedSteps skipped = {}) : budget_(budget), skipped_(skipped) {}

  // After every attempt at a step. A decision other than retry ends the step.
  StepDecision after_attempt(bool finite);

  // Skipped steps up to the last one that ended, that one included.
  const SkippedSteps& skipped() const { return skipped_; }
  const SkipBudget& budget() const { return budget_; }

 private:
  SkipBudget budget_;
  SkippedSteps skipped_;
  bool retrying_ = false;  // the next attempt is the step's second
};

}  // namespace nibble
