// Memory for tensors: planned by a dry run, taken from the system once, never during a training step.
//
// Build the same objects twice: first on a measuring arena, which hands out null pointers and adds up sizes, then on
// one that commit() has given its memory. allocate() beyond the plan is a defect (exit code 70). Memory is zeroed by
// the system on first use; running out of it is ExitCode::out_of_memory with the plan in the message.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "dist/device/dispatch.h"

namespace nibble {

class Arena {
 public:
  // Bytes. Every allocation starts on a cache line; on a GPU, as tiles of block scales need it.
  static constexpr size_t alignment = 64;
  static constexpr size_t cuda_alignment = 512;

  explicit Arena(std::string name, DeviceKind device = DeviceKind::cpu);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // Null while measuring, memory of the device after commit(); zeroed if nothing has used it before.
  void* allocate(size_t bytes);

  // Ends the measuring pass: takes as much memory as was asked for so far and starts handing it out from the beginning.
  void commit();
  // The same with memory of the caller's, zeroed, aligned, at least as much, which lives as long as the arena.
  void commit(std::span<std::byte> memory);

  // Gives back everything allocated after mark() returned `mark`, for storage that is reused within a step. The plan
  // remembers the largest extent.
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

}  // namespace nibble
