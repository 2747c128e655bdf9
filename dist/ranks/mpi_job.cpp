#include "dist/ranks/mpi_job.h"

#include <fmt/format.h>
#include <mpi.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <thread>

#include "dist/base/error.h"

namespace nibble {

void check_mpi(int result, std::string_view what) {
  if (result == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(result, text, &length);
  throw Error(ExitCode::peer_lost, fmt::format("MPI failed in {}: {}", what, std::string_view(text, length)),
              "look for the first rank that failed; then resume from the last checkpoint");
}

void abort_job(int exit_code) {
  std::fflush(nullptr);
  std::thread([exit_code] {
    std::this_thread::sleep_for(std::chrono::seconds(10));
    _exit(exit_code);
  }).detach();
  MPI_Abort(MPI_COMM_WORLD, exit_code);
  _exit(exit_code);
}

void die_with_launcher() {
  const pid_t launcher = getppid();
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != launcher) _exit(static_cast<int>(ExitCode::peer_lost));
}

}  // namespace nibble
