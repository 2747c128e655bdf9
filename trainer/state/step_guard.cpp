#include "trainer/state/step_guard.h"

#include <fmt/format.h>

namespace nibble {

namespace {

constexpr const char* in_a_row_name = "skipped/in_a_row";
constexpr const char* total_name = "skipped/total";

}  // namespace

void StepGuard::save(uint64_t /*steps*/, StateWriter& writer) const {
  writer.number(in_a_row_name, skipped_.in_a_row);
  writer.number(total_name, skipped_.total);
}

void StepGuard::load(const StateReader& reader) {
  const SkippedSteps saved{.in_a_row = reader.number(in_a_row_name), .total = reader.number(total_name)};
  if (saved.in_a_row > saved.total || saved.total > reader.steps()) {
    reader.refuse(fmt::format("{} of {} steps were skipped, {} in a row", saved.total, reader.steps(), saved.in_a_row));
  }
  skipped_ = saved;
  retrying_ = false;
}

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
