// The ranks of an mpirun or srun job. The program makes them with make_communicator(); make_mpi_communicator() is for
// tests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "dist/ranks/communicator.h"

namespace nibble {

struct MpiOptions {
  double timeout_s = 0;          // seconds, bound of every collective; 0 means none
  size_t chunk_bytes = 1 << 29;  // longest single message; MPI counts bytes in an int
  // For tests: the machine that a rank counts as, among ranks that are on one machine, and how much memory it can
  // share.
  int (*machine_of_rank)(int rank) = nullptr;
  size_t shared_bytes = SIZE_MAX;
  bool control = true;  // for tests: false as where a firewall keeps messages from the ranks
};

// Starts MPI, once a process. The destructor waits for all ranks, within the timeout, and ends MPI. While an exception
// unwinds it does not wait, because the other ranks may never come; whoever catches the exception calls abort().
std::unique_ptr<Communicator> make_mpi_communicator(const MpiOptions& options);

// Returns name and version of the MPI library, such as "Open MPI v4.1.4". It needs no launcher and starts nothing.
std::string mpi_library();

}  // namespace nibble
