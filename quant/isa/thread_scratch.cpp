#include "quant/isa/thread_scratch.h"

#include <fmt/format.h>

#include <memory>
#include <new>
#include <vector>

#include "dist/base/error.h"

namespace nibble {

std::byte* thread_scratch(size_t bytes) {
  constexpr size_t alignment = 64;
  thread_local std::vector<std::byte> memory;
  if (memory.size() < bytes + alignment) {
    try {
      memory.resize(bytes + alignment);
    } catch (const std::bad_alloc&) {
      throw Error(ExitCode::out_of_memory, fmt::format("no memory for a packing buffer of {} bytes", bytes),
                  "use fewer threads or free memory");
    }
  }
  void* start = memory.data();
  size_t space = memory.size();
  return static_cast<std::byte*>(std::align(alignment, bytes, start, space));
}

}  // namespace nibble
