// Decides what happens to an optimizer step whose numbers are not finite. A step is a pure function of the weights, the
// data and the run's seed: if it is computed again from the same inputs, a numerical problem comes back bit for bit,
// and a transient fault of the machine does not. So a step that is not finite is computed once more, then skipped,
// until the budget of skipped steps is used up. The decisions depend only on the outcomes of the attempts, not on ranks
// or models.
#pragma once

#include <cstdint>

#include "trainer/state/step_state.h"

namespace nibble {

// Counts the steps that a run has skipped so far. The counts are saved in its checkpoints.
struct SkippedSteps {
  uint64_t in_a_row = 0;
  uint64_t total = 0;
  friend bool operator==(const SkippedSteps&, const SkippedSteps&) = default;
};

// The largest numbers of skipped steps that a run may have. 0 allows none.
struct SkipBudget {
  uint64_t in_a_row = 0;
  uint64_t total = 0;
};

enum class StepDecision : uint8_t {
  apply,    // update the weights
  retry,    // compute the step once more from the same inputs
  skip,     // leave weights and moments as they are and go on
  give_up,  // skip, and end the run because the budget is exceeded
};

class StepGuard final : public StepState {
 public:
  explicit StepGuard(SkipBudget budget) : budget_(budget) {}

  std::string_view name() const override { return "guard"; }
  void save(uint64_t steps, StateWriter& writer) const override;
  // Checkpoints of older programs have no counts; these are then 0.
  void load(const StateReader& reader) override;

  // Call it after every attempt at a step. A decision other than retry ends the step.
  StepDecision after_attempt(bool finite);

  // Returns the counts of skipped steps, including the last step that ended.
  const SkippedSteps& skipped() const { return skipped_; }
  const SkipBudget& budget() const { return budget_; }

 private:
  SkipBudget budget_;
  SkippedSteps skipped_;
  bool retrying_ = false;  // true between the first and the second attempt at a step
};

}  // namespace nibble
