// What every process of an MPI job needs: a check of MPI's results, and its ends.
#pragma once

#include <string_view>

namespace nibble {

// Throws ExitCode::peer_lost for a result that is not MPI_SUCCESS.
void check_mpi(int result, std::string_view what);

// Ends all processes of the job. MPI_Abort may wait for a launcher that is gone, so a thread ends this process after 10
// seconds.
[[noreturn]] void abort_job(int exit_code);

// From now on the kernel kills this process with its parent: a rank must not outlive its launcher and go on writing
// into the run directory.
void die_with_launcher();

}  // namespace nibble
