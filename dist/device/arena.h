// An arena: memory for tensors, planned by a dry run and taken from the system once, never during a training step.
//
// The same objects are built twice: first on a measuring arena, which hands out null pointers and adds up sizes, then
// after commit() has given it memory; planned() does both. An allocate() beyond the plan is a defect (exit code 70).
// Memory is zeroed on first use; running out of it is ExitCode::out_of_memory, with the planned size in the message.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "dist/device/device_kind.h"

namespace nibble {

// Memory of this process's GPU that arenas leave free, for what libraries take there after a plan. It is 0 at first.
void set_gpu_reserve(size_t bytes);
size_t gpu_reserve();

class Arena {
 public:
  // Bytes. Allocations start on a cache line on the CPU, and on a GPU where a tile of block scales may start.
  static constexpr size_t alignment = 64;
  static constexpr size_t cuda_alignment = 512;

  explicit Arena(std::string name, DeviceKind device = DeviceKind::cpu);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // Returns null while measuring, and memory of the device after commit(), zeroed if nothing has used it before.
  void* allocate(size_t bytes);

  // Ends the measuring pass: takes as much memory as was asked for so far and hands it out from the beginning.
  void commit();
  // Ends it with the caller's memory: zeroed, aligned, at least planned_bytes(), and alive as long as the arena.
  void commit(std::span<std::byte> memory);

  // release(mark) gives back everything allocated after mark() returned `mark`, for storage that is reused within a
  // step. The plan keeps the largest extent.
  size_t mark() const { return used_; }
  void release(size_t mark);

  bool measuring() const { return base_ == nullptr; }
  size_t planned_bytes() const { return planned_; }
  const std::string& name() const { return name_; }
  DeviceKind device() const { return device_; }

 private:
  std::string name_;
  DeviceKind device_;
  std::byte* base_ = nullptr;
  size_t owned_bytes_ = 0;
  size_t used_ = 0;
  size_t planned_ = 0;
};

// Runs build() on the measuring arenas, gives each the memory that it was asked for, and runs build() again. Returns
// the result of the second run. build() must allocate the same each time and must not depend on an earlier run.
template <class Build>
auto planned(std::span<Arena* const> arenas, Build&& build) {
  static_cast<void>(build());
  for (Arena* arena : arenas) arena->commit();
  return build();
}
template <class Build>
auto planned(Arena& arena, Build&& build) {
  Arena* const one = &arena;
  return planned(std::span<Arena* const>(&one, 1), build);
}

}  // namespace nibble
