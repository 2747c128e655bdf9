// The ranks of an mpirun or srun job. Made through make_communicator(); the second function is for tests.
#pragma once

#include <cstddef>
#include <cstdint>

#include "dist/ranks/communicator.h"

namespace nibble {

struct MpiOptions {
  double timeout_s = 0;          // bound of every collective; 0 means none
  size_t chunk_bytes = 1 << 29;  // longest single message; MPI counts bytes in an int
  // For tests: what passes for the machine of a rank, among those that are on one; and how much memory it can share.
  int (*machine_of_rank)(int rank) = nullptr;
  size_t shared_bytes = SIZE_MAX;
};

// Starts MPI; once a process. The destructor waits for all ranks, within the timeout, and ends MPI, except while an
// exception unwinds: then the other ranks may never come, and whoever catches it calls abort().
std::unique_ptr<Communicator> make_mpi_communicator(const MpiOptions& options);

}  // namespace nibble
