// What the parts of the simulated runtime tell each other.
#pragma once

#include <cuda_runtime.h>

namespace simulator {

// Notes an error for cudaGetLastError(), and returns it.
cudaError_t error(cudaError_t value);

// Returns the error that the fault of a kernel has left, which all calls return from then on; success if there was
// none.
cudaError_t fault();

// Returns the error of a call that is not captured, and may not be made while the calling thread captures a stream,
// whose graph it spoils; or that of fault(); or success.
cudaError_t refuse_unsafe_call();

// NIBBLE_SIMULATED_CUDA_FAULT="launch 20" lets the 20th kernel that runs fault; "memory 5" lets cudaMalloc() fail from
// its 5th call on. Returns the number that is given for this kind of fault, or the largest there is.
long number_of_fault(const char* kind);

// The memory of the GPU: NIBBLE_SIMULATED_MEMORY, in MiB.
size_t device_bytes();

// Returns whether all of these bytes are of one allocation on the device, or of pinned memory.
bool is_device_memory(const void* memory, size_t bytes);
bool is_pinned_memory(const void* memory, size_t bytes);

// Opens device memory to this program while operations of streams run.
class Open {
 public:
  Open();
  ~Open();
  Open(const Open&) = delete;
  Open& operator=(const Open&) = delete;
};

}  // namespace simulator
