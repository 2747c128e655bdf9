#include "trainer/state/run_states.h"

#include "trainer/state/amax_history.h"
#include "trainer/state/outlier_selection.h"

namespace nibble {

namespace {

OscillationConfig oscillation_config(const OscillationRule& rule, const RunConfig& config) {
  return {.first_step = step_of_share(rule.from_share, static_cast<uint64_t>(config.train.steps)),
          .every = static_cast<uint64_t>(rule.every),
          .window = static_cast<uint64_t>(rule.window),
          .threshold = static_cast<float>(rule.threshold)};
}

SkipBudget skip_budget(const RunConfig& config) {
  return {.in_a_row = static_cast<uint64_t>(config.guard.skip_in_a_row),
          .total = static_cast<uint64_t>(config.guard.skip_total)};
}

}  // namespace

AskedStates add_states(StepStates& states, const StateContext& context) {
  Communicator& communicator = context.communicator;
  const RunConfig& config = context.config;
  const Recipe& recipe = config.recipe;
  if (AmaxHistory::needed(context.model)) states.add<AmaxHistory>(communicator, context.model);
  if (recipe.outliers && OutlierSelection::needed(context.model)) {
    states.add<OutlierSelection>(communicator, *recipe.outliers, context.model, context.schedule);
  }
  if (!context.training()) return {};
  if (recipe.oscillation) {
    states.add<OscillationState>(communicator, oscillation_config(*recipe.oscillation, config), context.weights,
                                 config.run.seed);
  }
  return {.telemetry = &states.add<Telemetry>(communicator, config, *context.schedule, context.plans_only),
          .product_check = &states.add<ProductCheck>(communicator, config, *context.schedule),
          .guard = &states.add<StepGuard>(skip_budget(config))};
}

}  // namespace nibble
