// Requests to stop. SIGUSR1, SIGTERM, SIGINT and SIGHUP (a closed terminal, unless nohup ignores it) ask for a
// checkpoint and an orderly end (ExitCode::start_again); the run polls for them. The second SIGTERM or SIGINT ends the
// process at once with 128 + its number. SIGUSR2 asks for a checkpoint after which the run goes on; so does a SIGCONT
// from mpirun. mpirun sends this to its ranks as soon as it is interrupted (Ctrl-C), SIGTERM a second later and SIGKILL
// another second later (Open MPI 4, odls_base_sigkill_timeout). It also sends SIGCONT when it has been stopped and goes
// on, which must not end a run.
#pragma once

#include <csignal>

namespace nibble {

// Installs the handlers; main calls it once at its start. SIGPIPE is ignored, because a reader that goes away must not
// end a run.
void install_signal_handlers();

// Returns true once one of these signals has arrived.
bool stop_requested();
enum class CheckpointRequest { none, signal, mpirun };  // nobody asks, SIGUSR2, SIGCONT from mpirun
// Returns a request once.
CheckpointRequest take_checkpoint_request();

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
