// The list of what a run remembers, in the order of calls. A new state has a row here, in run_states.cpp.
#pragma once

#include <cstdint>

#include "dist/ranks/communicator.h"
#include "dist/zero/schedule.h"
#include "model/language_model.h"
#include "trainer/config/run_config.h"
#include "trainer/state/oscillation_state.h"
#include "trainer/state/product_check.h"
#include "trainer/state/step_guard.h"
#include "trainer/state/step_state.h"
#include "trainer/state/telemetry.h"

namespace nibble {

// What states are made for. Communicator, configuration and schedule must outlive them; the model need not.
struct StateContext {
  Communicator& communicator;
  const RunConfig& config;
  const LanguageModel& model;  // follows the recipe as it is before its late switch
  // Of a run that trains; null and empty for a model that only takes what a checkpoint remembers.
  const Schedule* schedule = nullptr;
  ShardWeights weights = {};
  bool plans_only = false;  // the states only plan their memory

  bool training() const { return schedule != nullptr; }
};

// The states that the training loop asks what they have found.
struct AskedStates {
  Telemetry* telemetry = nullptr;
  ProductCheck* product_check = nullptr;
  StepGuard* guard = nullptr;
};

// Adds the states that a run needs, or a model that does not train; the latter asks none. Collective for a run.
AskedStates add_states(StepStates& states, const StateContext& context);

}  // namespace nibble
