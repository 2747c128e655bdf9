// Continuing a run, for `nibble resume` and `nibble train --continue`.
#pragma once

#include <cstdint>
#include <optional>

#include "dist/base/error.h"
#include "dist/ranks/communicator.h"
#include "trainer/config/run_config.h"

namespace nibble {

// Collective. Continues the run in config.run.dir from its checkpoint of `step`, or else from its newest valid one,
// after checking that `config` may continue it (check_resume()). With a step, the later checkpoints are set aside once
// all checks have passed.
ExitCode resume_run(Communicator& communicator, const RunConfig& config, std::optional<uint64_t> step = std::nullopt);

}  // namespace nibble
