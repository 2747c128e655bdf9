// Which keys would make a run smaller, found by planning the changed runs.
#pragma once

#include "trainer/plan/run_plan.h"

namespace nibble {

// Fills `changes` and `fits_with` of a plan that does not fit.
void find_changes(RunPlan& plan);

}  // namespace nibble
