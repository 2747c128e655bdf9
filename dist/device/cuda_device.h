// The GPU of this process: which one, its memory, its streams. Plain C++, for code that is not compiled by nvcc; what
// kernels need is in dist/device/launch.cuh. In builds with CUDA only; reached through dist/device/device.h and
// dist/device/device_memory.h.
//
// Every operation is put on the compute stream, in the order of the calls, and has not run when the call returns; a
// copy to or from the host waits for it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace nibble::cuda {

struct DeviceProperties {
  std::string name;  // "NVIDIA H100 80GB HBM3"
  int major = 0;     // compute capability
  int minor = 0;
  int multiprocessors = 0;
  size_t memory_bytes = 0;
  size_t shared_bytes_per_block = 0;  // with opt-in
  double memory_bandwidth = 0;        // bytes a second by the memory's clock and width; 0: not told
  double bf16_flops = 0;              // dense BF16 with FP32 sums, by the data sheet; 0: not known
};

// 0 without a driver.
int visible_devices();

// Binds this process to device `local_rank` of the visible ones and makes its streams. Once a process; later calls with
// the same device do nothing. Throws ExitCode::bad_config where there are fewer devices than ranks on the machine, or
// where this build has no code for the device.
void use_device(int local_rank);
const DeviceProperties& device_properties();

// Null where the device has not as much. Zeroed, aligned to 512 bytes (scale tiles of block-scaled products).
void* allocate(size_t bytes);
void release(void* memory, size_t bytes) noexcept;
// Host memory that the device reads and writes while the host goes on.
void* allocate_pinned(size_t bytes);
void release_pinned(void* memory) noexcept;
size_t free_bytes();

// Waits for all work of this process. Throws ExitCode::internal for what a kernel did wrong.
void synchronize();

}  // namespace nibble::cuda
