// The frame around every command that runs on several ranks: start the communicator, size the thread pool, and end all
// ranks with one message and one exit code whatever happens.
#pragma once

#include <functional>
#include <string>

#include "dist/base/error.h"
#include "dist/ranks/communicator.h"
#include "trainer/config/run_config.h"

namespace nibble {

// Reads the configuration on every rank, then runs body on all of them. A body returns its exit code; what it throws
// becomes that error's. Returns the process's exit code: an error has been printed then.
int rank_main(const std::function<RunConfig()>& read_config,
              const std::function<ExitCode(Communicator&, const RunConfig&)>& body);

// Prints `error[E65]: what` and `  fix: remedy` to standard error.
void print_error(int code, const std::string& what, const std::string& remedy);

}  // namespace nibble
