#include "dist/device/arena.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <limits>

#include "dist/base/error.h"
#include "dist/device/cuda_device.h"
#include "dist/device/dispatch.h"

namespace nibble {
namespace {

constexpr double mebibyte = 1024.0 * 1024.0;

std::atomic<size_t> reserve_of_process{0};

[[noreturn]] void fail_out_of_memory(const std::string& name, size_t bytes, const std::string& reason) {
  throw Error(
      ExitCode::out_of_memory,
      fmt::format("cannot take {:.1f} MiB of memory for {}: {}", static_cast<double>(bytes) / mebibyte, name, reason),
      out_of_memory_remedy);
}

// Refuses a request that exceeds the machine's memory. Without this check the system would promise the memory and kill
// the run later.
void refuse_more_than_the_machine_has(const std::string& name, size_t bytes) {
  struct sysinfo info {};
  if (sysinfo(&info) != 0) return;
  const double total = (static_cast<double>(info.totalram) + static_cast<double>(info.totalswap)) * info.mem_unit;
  if (static_cast<double>(bytes) > total) {
    fail_out_of_memory(name, bytes, fmt::format("this machine has {:.1f} MiB", total / mebibyte));
  }
}

// Refuses a request that would not leave the reserve free. Libraries would fail later, in the first step.
void refuse_what_the_gpu_cannot_spare(const std::string& name, size_t bytes) {
  if constexpr (built_with_cuda) {
    const size_t reserve = gpu_reserve();
    if (reserve == 0) return;
    const size_t free = cuda::free_bytes();
    if (free >= reserve && free - reserve >= bytes) return;
    fail_out_of_memory(name, bytes,
                       fmt::format("the GPU has {:.1f} MiB free, of which {:.1f} MiB are kept for what libraries take "
                                   "later",
                                   static_cast<double>(free) / mebibyte, static_cast<double>(reserve) / mebibyte));
  }
}

}  // namespace

namespace cpu {
namespace {

// Returns null where the system refuses.
void* allocate(size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  madvise(memory, bytes, MADV_HUGEPAGE);  // a hint; without huge pages small ones serve
  return memory;
}

void release(void* memory, size_t bytes) {
  munmap(memory, bytes);
}

}  // namespace
}  // namespace cpu

void set_gpu_reserve(size_t bytes) {
  reserve_of_process = bytes;
}

size_t gpu_reserve() {
  return reserve_of_process;
}

Arena::Arena(std::string name, DeviceKind device) : name_(std::move(name)), device_(device) {}

Arena::~Arena() {
  if (owned_bytes_ > 0) NIBBLE_DISPATCH(device_, release, base_, owned_bytes_);
}

void* Arena::allocate(size_t bytes) {
  NIBBLE_CHECK(bytes <= std::numeric_limits<size_t>::max() / 2 - used_, "allocation size overflows in " + name_);
  const size_t begin = used_;
  used_ += round_up(bytes, device_ == DeviceKind::cuda ? cuda_alignment : alignment);
  if (measuring()) {
    planned_ = std::max(planned_, used_);
    return nullptr;
  }
  NIBBLE_CHECK(used_ <= planned_, fmt::format("{} asks for more memory than was planned ({} bytes)", name_, planned_));
  return base_ + begin;
}

void Arena::commit() {
  NIBBLE_CHECK(measuring(), "arena " + name_ + " has its memory already");
  const size_t bytes = std::max(planned_, alignment);
  if (device_ == DeviceKind::cpu) {
    refuse_more_than_the_machine_has(name_, bytes);
  } else {
    refuse_what_the_gpu_cannot_spare(name_, bytes);
  }
  void* memory = NIBBLE_DISPATCH(device_, allocate, bytes);
  if (memory == nullptr) {
    fail_out_of_memory(name_, bytes,
                       device_ == DeviceKind::cpu ? "the system refuses" : "the GPU has not as much free");
  }
  base_ = static_cast<std::byte*>(memory);
  owned_bytes_ = bytes;
  used_ = 0;
}

void Arena::commit(std::span<std::byte> memory) {
  NIBBLE_CHECK(measuring(), "arena " + name_ + " has its memory already");
  NIBBLE_CHECK(memory.data() != nullptr && memory.size() >= planned_, "memory for arena " + name_);
  NIBBLE_CHECK(reinterpret_cast<uintptr_t>(memory.data()) % alignment == 0, "memory for an arena is aligned");
  base_ = memory.data();
  used_ = 0;
}

void Arena::release(size_t mark) {
  NIBBLE_CHECK(mark <= used_, "release of memory that arena " + name_ + " has not handed out");
  used_ = mark;
}

}  // namespace nibble
