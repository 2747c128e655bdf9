// Which rank computes which micro-batch of a run's steps.
#pragma once

#include "dist/zero/schedule.h"
#include "trainer/config/run_config.h"

namespace nibble {

Schedule step_schedule(const RunConfig& config, int ranks);

}  // namespace nibble
