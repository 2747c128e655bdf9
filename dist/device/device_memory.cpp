#include "dist/device/device_memory.h"

#include <cstring>
#include <new>

#include "dist/device/cuda_device.h"
#include "dist/device/dispatch.h"
#include "dist/device/pinned_memory.h"

namespace nibble {
namespace cpu {
namespace {

void copy_bytes(const CopyBytes& problem) {
  if (problem.bytes > 0) std::memmove(problem.to, problem.from, problem.bytes);
}
void start_copy_bytes(const CopyBytes& problem) {
  cpu::copy_bytes(problem);
}
void zero_bytes(void* memory, size_t bytes) {
  if (bytes > 0) std::memset(memory, 0, bytes);
}
void synchronize() {}
void wait_for_device() noexcept {}
void* allocate_pinned(size_t bytes) {
  return ::operator new(bytes);
}
void release_pinned(void* memory) noexcept {
  ::operator delete(memory);
}
void* set_mark(void* mark) {
  return mark;
}
void wait_for_mark(void* /*mark*/) {}
void release_mark(void* /*mark*/) noexcept {}

}  // namespace
}  // namespace cpu

void copy_bytes(const CopyBytes& problem) {
  const DeviceKind device = problem.to_device == DeviceKind::cpu ? problem.from_device : problem.to_device;
  NIBBLE_DISPATCH(device, copy_bytes, problem);
}

void start_copy_bytes(const CopyBytes& problem) {
  const DeviceKind device = problem.to_device == DeviceKind::cpu ? problem.from_device : problem.to_device;
  NIBBLE_DISPATCH(device, start_copy_bytes, problem);
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

PinnedMemory::PinnedMemory(DeviceKind device, size_t bytes)
    : device_(device), memory_(NIBBLE_DISPATCH(device, allocate_pinned, bytes)) {}

PinnedMemory::~PinnedMemory() {
  if (mark_ != nullptr) NIBBLE_DISPATCH(device_, release_mark, mark_);
  NIBBLE_DISPATCH(device_, release_pinned, memory_);
}

void PinnedMemory::mark() {
  mark_ = NIBBLE_DISPATCH(device_, set_mark, mark_);
}

void PinnedMemory::wait() {
  if (mark_ != nullptr) NIBBLE_DISPATCH(device_, wait_for_mark, mark_);
}

}  // namespace nibble
