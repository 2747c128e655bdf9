#include "trainer/run/step_guard.h"

namespace nibble {

StepDecision StepGuard::after_attempt(bool finite) {
  if (!finite && !retrying_) {
    retrying_ = true;
    return StepDecision::retry;
  }
  retrying_ = false;
  if (finite) {
    skipped_.in_a_row = 0;
    return StepDecision::apply;
  }
  ++skipped_.in_a_row;
  ++skipped_.total;
  const bool exceeded = skipped_.in_a_row > budget_.in_a_row || skipped_.total > budget_.total;
  return exceeded ? StepDecision::give_up : StepDecision::skip;
}

}  // namespace nibble
