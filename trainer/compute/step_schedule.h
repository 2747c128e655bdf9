// Which rank computes which micro-batch of a run's steps.
#pragma once

#include <string>

#include "dist/zero/schedule.h"
#include "trainer/config/run_config.h"

namespace nibble {

// Ranks have whole groups of micro-batches if there is one for each, because gradients then travel once a step; else
// micro-batches are dealt out in stripes, so that all ranks have work. The bits are the same. The environment variable
// NIBBLE_ORDER, "rows" or "stripes", forces an order in tests; throws ExitCode::bad_config for another value.
Schedule step_schedule(const RunConfig& config, int ranks);

// Returns a text such as "6 micro-batches in 2 groups, stripes: more ranks than groups".
std::string describe(const Schedule& schedule);

}  // namespace nibble
