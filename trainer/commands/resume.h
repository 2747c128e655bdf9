// Continuing a run, for `nibble resume` and `nibble train --continue`.
#pragma once

#include "dist/base/error.h"
#include "dist/ranks/communicator.h"
#include "trainer/config/run_config.h"

namespace nibble {

// Collective. Continues the run in config.run.dir from its newest valid checkpoint, after checking that `config` may
// continue it (check_resume()).
ExitCode resume_run(Communicator& communicator, const RunConfig& config);

}  // namespace nibble
