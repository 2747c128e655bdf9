#include "trainer/run/step_warning.h"

#include <fmt/format.h>

#include "trainer/report/metrics.h"

namespace nibble {
namespace {

// Returns a text such as "loss nan, gradient norm inf, 12 such values in quantisers".
std::string numbers_of(const StepAttempt& attempt) {
  return fmt::format("loss {}, gradient norm {}, {} such values in quantisers", attempt.loss, attempt.grad_norm,
                     attempt.non_finite);
}

nlohmann::json attempt_json(const StepAttempt& attempt) {
  return {{"loss_hex", hexadecimal_bits(attempt.loss)}, {"grad_norm_hex", hexadecimal_bits(attempt.grad_norm)}};
}

std::string transient_text(uint64_t step, const StepAttempt& first) {
  const std::string where = first.first_rank < 0 ? "" : fmt::format(" on rank {}", first.first_rank);
  return fmt::format(
      "step {} was not finite ({}){}, but is when computed again from the same inputs, and is applied: a transient "
      "fault of the machine. Check its memory (ECC counts, memory test): the next fault may change numbers unnoticed",
      step, numbers_of(first), where);
}

std::string skipped_text(uint64_t step, const StepResult& result) {
  return fmt::format("step {} is not finite ({}), {}: its update is not applied", step, numbers_of(result.attempt),
                     result.same_bits ? "and has the same bits when computed again"
                                      : "nor when computed again, but with other bits: besides a numerical problem "
                                        "the machine may be faulty, check its memory (ECC counts, memory test)");
}

}  // namespace

StepWarning step_warning(uint64_t step, const StepResult& result) {
  const bool applied = result.decision == StepDecision::apply;
  return {.text = applied ? transient_text(step, *result.first) : skipped_text(step, result),
          .details = {{"kind", applied ? "transient_fault" : "skipped_step"},
                      {"attempts", {attempt_json(*result.first), attempt_json(result.attempt)}},
                      {"same_bits", result.same_bits}}};
}

}  // namespace nibble
