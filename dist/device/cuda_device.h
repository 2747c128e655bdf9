// The GPU of this process: its properties, its memory, its streams. This header is plain C++, for code that nvcc does
// not compile; dist/device/launch.cuh has what kernels need. It exists in builds with CUDA only and is reached through
// dist/device/device.h and dist/device/device_memory.h.
//
// Every operation is put on the compute stream, in the order of the calls, and has not run when the call returns; a
// copy to or from the host waits until it is done.
#pragma once

#include <array>
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
  size_t shared_bytes_per_block = 0;  // dynamic shared memory of a block, with opt-in
  double memory_bandwidth = 0;        // bytes a second, from the memory's clock and width; 0: unknown
  double bf16_flops = 0;              // FLOP/s of dense BF16 with FP32 sums, by the data sheet; 0: unknown
  // What tells GPUs apart, as nvidia-smi -L prints it. Slices of one GPU (MIG) have different ones, and the same PCI
  // address.
  std::array<uint8_t, 16> uuid{};
};

struct VisibleDevices {
  int count = 0;             // the GPUs that this process sees
  std::string problem = {};  // why there is none, in CUDA's words; empty if there is one
  std::string remedy = {};   // what to do about it
  bool no_device = false;    // there is no GPU or no driver; otherwise there may be a GPU that cannot be used
};
VisibleDevices visible_devices();

// Binds this process to device `local_rank` of the visible ones, counted round, and makes its streams: a rank may see
// the GPUs of all ranks of its machine, or only its own. A process has one device; later calls with the same device do
// nothing. Throws ExitCode::bad_config if there is no device, or if this build has no code for it.
void use_device(int local_rank);
const DeviceProperties& device_properties();

// Returns zeroed memory, aligned to 512 bytes (which the scale tiles of block-scaled GEMMs need); null if the device
// does not have as much.
void* allocate(size_t bytes);
void release(void* memory, size_t bytes) noexcept;
// Returns host memory that the device can read and write while the host goes on.
void* allocate_pinned(size_t bytes);
void release_pinned(void* memory) noexcept;
size_t free_bytes();

// Waits for all work of this process. Throws ExitCode::internal if a kernel failed.
void synchronize();

}  // namespace nibble::cuda
