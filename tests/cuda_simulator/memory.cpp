// Device memory, which faults when the host touches it, and pinned memory.
#include <cuda_runtime.h>
#include <sys/mman.h>

#include <cstdlib>
#include <map>
#include <mutex>
#include <utility>

#include "accesses.h"
#include "runtime.h"

namespace simulator {
namespace {

constexpr size_t page = 4096;
constexpr size_t huge_page = size_t{2} << 20;

struct Allocation {
  size_t bytes = 0;
  bool pinned = false;
  size_t whole() const { return (std::max<size_t>(bytes, 1) + page - 1) / page * page; }
};
std::mutex mutex;
std::map<uintptr_t, Allocation> allocations;  // by address

size_t free_bytes() {
  const std::lock_guard lock(mutex);
  size_t free = device_bytes();
  for (const auto& [at, allocation] : allocations) {
    if (!allocation.pinned) free -= allocation.whole();
  }
  return free;
}

// Device memory lies in addresses of its own, one allocation behind the other, so that neighbours are opened and closed
// together: this happens at each wait, and some tests have a thousand allocations. No address is used again.
constexpr size_t address_bytes = size_t{1} << 40;

// Returns memory that cannot be touched, or null.
void* take_addresses(size_t bytes) {
  static uintptr_t next = 0, end = 0;
  const std::lock_guard lock(mutex);
  if (end == 0) {
    void* const all = mmap(nullptr, address_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (all == MAP_FAILED) fail("there are no addresses for device memory");
    next = reinterpret_cast<uintptr_t>(all);
    end = next + address_bytes;
  }
  if (bytes >= huge_page) next = (next + huge_page - 1) / huge_page * huge_page;
  if (end - next < bytes) return nullptr;
  auto* const memory = reinterpret_cast<void*>(std::exchange(next, next + bytes));
  // Fewer pages are opened and closed in less time.
  if (bytes >= huge_page) madvise(memory, bytes, MADV_HUGEPAGE);
  return memory;
}

void give_back(void* memory, size_t bytes) {
  mmap(memory, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

void protect(int protection) {
  const std::lock_guard lock(mutex);
  Range neighbours;
  const auto protect_them = [&] {
    if (neighbours.bytes > 0) mprotect(reinterpret_cast<void*>(neighbours.begin), neighbours.bytes, protection);
  };
  for (const auto& [at, allocation] : allocations) {
    if (allocation.pinned) continue;
    if (neighbours.begin + neighbours.bytes != at) {
      protect_them();
      neighbours = {at, 0};
    }
    neighbours.bytes += allocation.whole();
  }
  protect_them();
}

void keep(void* memory, const Allocation& allocation) {
  const std::lock_guard lock(mutex);
  allocations[reinterpret_cast<uintptr_t>(memory)] = allocation;
}

// Returns whether there was such an allocation.
bool forget(void* memory, bool pinned) {
  const std::lock_guard lock(mutex);
  const auto found = allocations.find(reinterpret_cast<uintptr_t>(memory));
  if (found == allocations.end() || found->second.pinned != pinned) return false;
  if (pinned) {
    std::free(memory);
  } else {
    give_back(memory, found->second.whole());
  }
  allocations.erase(found);
  return true;
}

// The allocation in whose pages `at` lies.
std::pair<uintptr_t, Allocation> find(uintptr_t at) {
  const std::lock_guard lock(mutex);
  auto after = allocations.upper_bound(at);
  if (after == allocations.begin()) return {};
  --after;
  if (at - after->first >= after->second.whole()) return {};
  return *after;
}

bool is_memory(const void* memory, size_t bytes, bool pinned) {
  const auto at = reinterpret_cast<uintptr_t>(memory);
  const auto [begin, allocation] = find(at);
  return allocation.bytes > 0 && allocation.pinned == pinned && Range{begin, allocation.bytes}.holds(at, bytes);
}

int opened = 0;

}  // namespace

size_t device_bytes() {
  const char* wanted = std::getenv("NIBBLE_SIMULATED_MEMORY");
  return static_cast<size_t>(wanted == nullptr ? 4096 : std::atoll(wanted)) << 20;
}

Open::Open() {
  if (opened++ == 0) protect(PROT_READ | PROT_WRITE);
}
Open::~Open() {
  if (--opened == 0) protect(PROT_NONE);
}

Range allocation_at(uintptr_t at) {
  const auto [begin, allocation] = find(at);
  return {begin, allocation.bytes};
}
bool is_device_memory(const void* memory, size_t bytes) {
  return is_memory(memory, bytes, false);
}
bool is_pinned_memory(const void* memory, size_t bytes) {
  return is_memory(memory, bytes, true);
}

}  // namespace simulator

using namespace simulator;

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  static long calls = 0;
  if (const cudaError_t status = refuse_unsafe_call(); status != cudaSuccess) return status;
  const Allocation allocation{bytes, false};
  if (++calls >= number_of_fault("memory") || allocation.whole() > free_bytes())
    return error(cudaErrorMemoryAllocation);
  *memory = take_addresses(allocation.whole());
  if (*memory == nullptr) return error(cudaErrorMemoryAllocation);
  keep(*memory, allocation);
  return cudaSuccess;
}
cudaError_t cudaFree(void* memory) {
  if (const cudaError_t status = refuse_unsafe_call(); status != cudaSuccess) return status;
  if (memory == nullptr) return cudaSuccess;
  cudaDeviceSynchronize();
  return forget(memory, false) ? cudaSuccess : error(cudaErrorInvalidValue);
}
cudaError_t cudaHostAlloc(void** memory, size_t bytes, unsigned) {
  if (const cudaError_t status = refuse_unsafe_call(); status != cudaSuccess) return status;
  const Allocation allocation{bytes, true};
  *memory = std::aligned_alloc(page, allocation.whole());
  if (*memory == nullptr) return error(cudaErrorMemoryAllocation);
  keep(*memory, allocation);
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* memory) {
  if (const cudaError_t status = refuse_unsafe_call(); status != cudaSuccess) return status;
  if (memory == nullptr) return cudaSuccess;
  cudaDeviceSynchronize();
  return forget(memory, true) ? cudaSuccess : error(cudaErrorInvalidValue);
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  if (const cudaError_t status = fault(); status != cudaSuccess) return status;
  *total = device_bytes();
  *free = free_bytes();
  return cudaSuccess;
}
