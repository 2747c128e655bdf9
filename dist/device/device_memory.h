// Copying and zeroing bytes on the CPU or on the GPU of this process. The devices of the two ends decide which copy is
// made.
#pragma once

#include <cstddef>
#include <span>

#include "dist/device/device_kind.h"

namespace nibble {

struct CopyBytes {
  void* to = nullptr;
  DeviceKind to_device = DeviceKind::cpu;
  const void* from = nullptr;
  DeviceKind from_device = DeviceKind::cpu;
  size_t bytes = 0;
};
// Copies after all work that the device was given before. The copy is done when the call returns, unless both ends are
// on the device.
void copy_bytes(const CopyBytes& problem);

void zero_bytes(void* memory, DeviceKind device, size_t bytes);

// Waits until the device has done all its work, and throws the Error of what went wrong meanwhile.
void synchronize(DeviceKind device);

// Waits for all queued device work without reporting its errors; the next synchronize() reports them.
void wait_for_device(DeviceKind device) noexcept;

namespace cuda {
void wait_for_device() noexcept;
void copy_bytes(const CopyBytes& problem);
void zero_bytes(void* memory, size_t bytes);
}  // namespace cuda

}  // namespace nibble
