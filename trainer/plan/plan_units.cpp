#include "trainer/plan/plan_units.h"

#include <fmt/format.h>

#include <cctype>

#include "trainer/checkpoint/checkpoint.h"

namespace nibble {

std::string key_of(const std::string& what) {
  std::string key;
  for (const char c : what) {
    if (std::isalnum(static_cast<unsigned char>(c)) != 0) {
      key += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    } else if (c != '\'' && !key.empty() && key.back() != '_') {
      key += '_';
    }
  }
  return key;
}

uint64_t checkpoints_at_once(const RunConfig& config) {
  const auto number = [](int64_t value) { return static_cast<uint64_t>(value); };
  const bool keeps_best = !config.checkpoint.keep_best.empty() && config.eval.every > 0;
  return CheckpointPlan{.steps = number(config.train.steps),
                        .every = number(config.checkpoint.every),
                        .keep_last = number(config.checkpoint.keep_last),
                        .keep_every = number(config.checkpoint.keep_every),
                        .validations = keeps_best ? number(config.train.steps / config.eval.every) : 0}
      .most_at_once();
}

std::string energy_basis(const RunPlan& plan) {
  if (!plan.watts) return "not computed: the power of this machine is not known; give --watts, for each rank";
  return fmt::format("estimate: {:.0f} W a rank x {} for the rest of the machine and cooling (assumed) x hours",
                     *plan.watts, power_overhead);
}

}  // namespace nibble
