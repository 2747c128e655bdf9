// Ranks that exchange device memory with NCCL, on the communication stream. NCCL adds numbers in start_sum() only.
//
// An operation that the stream has begun, and each call of NCCL, ends within timeout_s. If it does not, or if NCCL
// reports an error, a thread of the process ends the whole job with ExitCode::peer_lost and names the operation, its
// number and this rank.
//
// NCCL is used in its blocking mode, by one thread at a time: NCCL is not thread-safe, and its query for asynchronous
// errors frees an operation's memory in the non-blocking mode, which also costs a new thread for each operation. A call
// that waits for a rank that never comes is ended by the deadline like an operation on the device.
// Sources: NCCL 2.28 user guide, "Thread safety", "Fault tolerance" and "Asynchronous errors and error handling".
#pragma once

#include <memory>
#include <string>

#include "dist/ranks/device_communicator.h"

namespace nibble::cuda {

// Returns why this process cannot use NCCL (libnccl.so.2 is not found, or nibble was built without its header); empty
// if it can.
std::string nccl_problem();

// Collective, after use_device() with a different GPU for each rank and an empty nccl_problem() on all ranks; one rank
// is enough. If NCCL does not start, throws ExitCode::bad_config or ends the job as above. The destructor waits for all
// ranks, except while an exception unwinds.
std::unique_ptr<DeviceCommunicator> make_nccl_communicator(Communicator& host, double timeout_s);

}  // namespace nibble::cuda
