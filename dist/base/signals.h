// Requests to stop. SIGUSR1, SIGTERM, SIGINT and SIGHUP (a closed terminal; not under nohup) ask for a checkpoint and
// an orderly end (ExitCode::start_again); the run polls for them. The second SIGTERM or SIGINT ends the process at once
// with 128 + its number.
#pragma once

#include <csignal>

namespace nibble {

// Once, at the start of main. Also ignores SIGPIPE: a reader that goes away must not end a run.
void install_signal_handlers();

bool stop_requested();

// While it lives, no signal is delivered to this thread or to threads started by it: handlers run on the main thread.
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
