// Requests to stop. SIGUSR1, SIGTERM, SIGINT and SIGHUP (a closed terminal, unless nohup ignores it) ask for a
// checkpoint and an orderly end (ExitCode::start_again); the run polls for them. The second SIGTERM or SIGINT ends the
// process at once with 128 + its number. SIGUSR2 asks for a checkpoint after which the run goes on.
#pragma once

#include <csignal>

namespace nibble {

// Installs the handlers; main calls it once at its start. SIGPIPE is ignored, because a reader that goes away must not
// end a run.
void install_signal_handlers();

// Returns true once one of these signals has arrived.
bool stop_requested();
// Returns true once after SIGUSR2 has arrived.
bool take_checkpoint_request();

// While an object of this class lives, no signal is delivered to this thread or to threads started by it, so that
// handlers run on the main thread.
class BlockSignals {
 public:
  BlockSignals();
  ~BlockSignals();
  BlockSignals(const BlockSignals&) = delete;
  BlockSignals& operator=(const BlockSignals&) = delete;

 private:
  sigset_t previous_{};
};

}  // namespace nibble
