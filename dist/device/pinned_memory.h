// Memory of the CPU from which a GPU copies while the CPU goes on. Implemented in device_memory.cpp and cuda_device.cu.
#pragma once

#include <cstddef>

#include "dist/device/device_memory.h"

namespace nibble {

// Does what copy_bytes() does, but need not have copied when it returns: until the device is done with the copy, memory
// of the CPU must neither change nor be read. From memory that is not pinned, CUDA may let the CPU wait after all.
void start_copy_bytes(const CopyBytes& problem);

// Pinned memory, and a mark that tells when the device is done with it. On the CPU it is plain memory.
class PinnedMemory {
 public:
  PinnedMemory(DeviceKind device, size_t bytes);
  ~PinnedMemory();
  PinnedMemory(const PinnedMemory&) = delete;
  PinnedMemory& operator=(const PinnedMemory&) = delete;

  void* data() const { return memory_; }
  // mark() stands behind all work that the device was given before; wait() returns when the device has passed the
  // newest mark, at once where there is none.
  void mark();
  void wait();

 private:
  DeviceKind device_;
  void* memory_;
  void* mark_ = nullptr;
};

namespace cuda {
void start_copy_bytes(const CopyBytes& problem);
// Puts a mark on the compute stream: `mark`, or a new one if that is null. Returns it.
void* set_mark(void* mark);
void wait_for_mark(void* mark);
void release_mark(void* mark) noexcept;
}  // namespace cuda

}  // namespace nibble
