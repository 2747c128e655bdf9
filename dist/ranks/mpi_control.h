// Sets up the control (dist/watch/control.h) of ranks that MPI connects.
#pragma once

#include <mpi.h>

#include <memory>

#include "dist/ranks/mpi_communicator.h"
#include "dist/watch/control.h"

namespace nibble {

// Collective. The result is alone where there is one rank, and where messages of the control do not pass between some
// ranks, after one warning.
std::unique_ptr<Control> make_mpi_control(MPI_Comm ranks, const MpiOptions& options);

}  // namespace nibble
