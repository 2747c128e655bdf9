#include "dist/base/signals.h"

#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <initializer_list>

namespace nibble {
namespace {

std::atomic<bool> stop{false};
std::atomic<CheckpointRequest> checkpoint{CheckpointRequest::none};
std::atomic<pid_t> launcher{0};  // Open MPI's process that has started this one; 0 if none has
std::atomic<int> impatience{0};  // number of SIGTERM and SIGINT received
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<int>::is_always_lock_free &&
              std::atomic<CheckpointRequest>::is_always_lock_free && std::atomic<pid_t>::is_always_lock_free);

void ask_to_stop(int number) {
  stop = true;
  if ((number == SIGTERM || number == SIGINT) && impatience.fetch_add(1) > 0) _exit(128 + number);
}

void ask_for_checkpoint(int) {
  checkpoint = CheckpointRequest::signal;
}

void continued(int, siginfo_t* info, void*) {
  if (launcher != 0 && info->si_pid == launcher) checkpoint = CheckpointRequest::mpirun;
}

}  // namespace

void install_signal_handlers() {
  struct sigaction action {};
  action.sa_handler = ask_to_stop;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  for (const int number : {SIGUSR1, SIGTERM, SIGINT}) sigaction(number, &action, nullptr);
  struct sigaction hangup {};
  sigaction(SIGHUP, nullptr, &hangup);
  if (hangup.sa_handler != SIG_IGN) sigaction(SIGHUP, &action, nullptr);  // nohup sets SIGHUP to be ignored
  action.sa_handler = ask_for_checkpoint;
  sigaction(SIGUSR2, &action, nullptr);
  if (std::getenv("OMPI_COMM_WORLD_RANK") != nullptr) launcher = getppid();
  struct sigaction continuation {};
  continuation.sa_sigaction = continued;
  continuation.sa_flags = SA_RESTART | SA_SIGINFO;
  sigaction(SIGCONT, &continuation, nullptr);
  struct sigaction ignore {};
  ignore.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &ignore, nullptr);
}

bool stop_requested() {
  return stop;
}

CheckpointRequest take_checkpoint_request() {
  return checkpoint.exchange(CheckpointRequest::none);
}

BlockSignals::BlockSignals() {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &previous_);
}

BlockSignals::~BlockSignals() {
  pthread_sigmask(SIG_SETMASK, &previous_, nullptr);
}

}  // namespace nibble
