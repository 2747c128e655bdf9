#include "dist/device/device_memory.h"

#include <cstring>

#include "dist/device/cuda_device.h"
#include "dist/device/dispatch.h"

namespace nibble {
namespace cpu {
namespace {

void copy_bytes(const CopyBytes& problem) {
  if (problem.bytes > 0) std::memmove(problem.to, problem.from, problem.bytes);
}
void zero_bytes(void* memory, size_t bytes) {
  if (bytes > 0) std::memset(memory, 0, bytes);
}
void synchronize() {}
void wait_for_device() noexcept {}

}  // namespace
}  // namespace cpu

void copy_bytes(const CopyBytes& problem) {
  const DeviceKind device = problem.to_device == DeviceKind::cpu ? problem.from_device : problem.to_device;
  NIBBLE_DISPATCH(device, copy_bytes, problem);
}

void zero_bytes(void* memory, DeviceKind device, size_t bytes) {
  NIBBLE_DISPATCH(device, zero_bytes, memory, bytes);
}

void wait_for_device(DeviceKind device) noexcept {
  NIBBLE_DISPATCH(device, wait_for_device, );
}

void synchronize(DeviceKind device) {
  NIBBLE_DISPATCH(device, synchronize, );
}

}  // namespace nibble
