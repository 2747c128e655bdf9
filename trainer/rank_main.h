// The frame around every command that runs on several ranks: it starts the communicator, sizes the thread pool, and
// ends all ranks with one message and one exit code, whatever happens.
#pragma once

#include <functional>

#include "dist/base/error.h"
#include "dist/ranks/communicator.h"
#include "trainer/config/run_config.h"

namespace nibble {

// Reads the configuration on every rank, then runs `body` on all of them. Returns the exit code of the process: the
// body's own, or that of the error which the body threw. Errors have been printed when the function returns.
int rank_main(const std::function<RunConfig()>& read_config,
              const std::function<ExitCode(Communicator&, const RunConfig&)>& body);

}  // namespace nibble
