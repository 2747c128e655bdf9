// Bytes on the CPU or on the GPU of this process. One call for both: the devices of the two ends say what is done.
#pragma once

#include <cstddef>
#include <span>

#include "dist/device/dispatch.h"

namespace nibble {

struct CopyBytes {
  void* to = nullptr;
  DeviceKind to_device = DeviceKind::cpu;
  const void* from = nullptr;
  DeviceKind from_device = DeviceKind::cpu;
  size_t bytes = 0;
};
// In order with what was asked of the device before. Done when the call returns, unless both ends are on the device.
void copy_bytes(const CopyBytes& problem);

void zero_bytes(void* memory, DeviceKind device, size_t bytes);

// Waits until the device has done everything that it was asked for, and reports what went wrong meanwhile.
void synchronize(DeviceKind device);

// The same for who only wants to know when: errors stay for the next call that reports them.
void wait_for_device(DeviceKind device) noexcept;

namespace cuda {
void wait_for_device() noexcept;
void copy_bytes(const CopyBytes& problem);
void zero_bytes(void* memory, size_t bytes);
}  // namespace cuda

}  // namespace nibble
