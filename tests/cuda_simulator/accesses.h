// What the parts of the simulator tell each other about memory. accesses.cpp checks what kernels touch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace simulator {

struct Range {
  uintptr_t begin = 0;
  size_t bytes = 0;
  bool holds(uintptr_t at, size_t count) const { return at - begin < bytes && count <= bytes - (at - begin); }
};

// A thread of a kernel.
struct CheckedThread {
  Range stack;
  unsigned number = 0;  // in the block
};

// The scheduler of threads calls these: at the start of a kernel and of each of its blocks, when all threads of the
// block have met at a barrier, when lanes of a warp have met at __syncwarp(), and when a thread begins or ceases to run
// (null: what runs now is no kernel, and may touch everything).
void begin_launch(const void* function, Range dynamic_shared);
void begin_block();
void order_block();
void order_warp(unsigned warp);
void check_accesses_of(const CheckedThread* thread);

// Returns the allocation of device or pinned memory in whose pages `at` lies; an empty range if there is none. Its size
// is the one that was asked for, so that the last page may go on after it.
Range allocation_at(uintptr_t at);

// Returns the readable name of a function of this program, or "a kernel without a name".
std::string name_of_function(const void* function);

}  // namespace simulator
