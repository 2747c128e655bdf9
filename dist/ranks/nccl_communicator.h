// Ranks that exchange device memory over NCCL, on the communication stream. NCCL adds nothing here but in start_sum().
//
// An operation that the stream has begun ends within timeout_s, or else, as after an error of NCCL's, the whole job
// ends with ExitCode::peer_lost, naming the operation, its number and this rank. A thread of each process sees to that.
// Sources: NCCL 2.28 user guide, "Fault tolerance" and "Asynchronous errors and error handling".
#pragma once

#include <memory>
#include <string>

#include "dist/ranks/device_communicator.h"

namespace nibble::cuda {

// Why this process cannot use NCCL: libnccl.so.2 is not found, or nibble was built without its header. Empty if it can.
std::string nccl_problem();

// Collective, after use_device() with a GPU of its own for each rank; nccl_problem() is empty on all ranks. Throws
// ExitCode::bad_config, or ends the job as above, where NCCL does not start. The destructor waits for all ranks, except
// while an exception unwinds.
std::unique_ptr<DeviceCommunicator> make_nccl_communicator(Communicator& host, double timeout_s);

}  // namespace nibble::cuda
