// The compute threads of this process, and parallel_for on them.
//
// A process has one pool, whose size is set once at the start. The caller takes part; chunks are handed out
// dynamically; a call from inside a chunk runs serially. Results never depend on the number of threads, because no
// reduction crosses chunks: a body may only write what belongs to its own range. The source is thread_pool.cpp;
// available_threads() is in available_threads.cpp.
#pragma once

#include <cstddef>
#include <memory>
#include <type_traits>

namespace nibble {

// Returns the number of threads that the processor affinity mask and the cgroup quota give this process, divided among
// the ranks on this node. The result is at least 1.
int available_threads(int ranks_on_node);

// Starts the pool with `threads` threads, the caller included, in place of an earlier pool. Must be called outside
// parallel_for. Idle threads spin briefly before they park, unless the ranks on this node ask for more threads than it
// has.
void set_compute_threads(int threads, int ranks_on_node = 1);
int compute_threads();
// Returns the index of the calling thread in the pool, 0 .. compute_threads()-1 (0 outside parallel_for), for
// per-thread scratch.
int current_compute_thread();

namespace detail {
void parallel_for(size_t count, size_t grain, void (*body)(void* context, size_t begin, size_t end), void* context);
}

// Calls body(begin, end) on ranges that cover [0, count) once, each at most grain long and starting at a multiple of
// grain. An exception thrown by a body is rethrown here after all running chunks have ended; if several are thrown, the
// one of the lowest range is. While another thread is inside parallel_for, a call runs serially on its own thread.
template <class Body>
void parallel_for(size_t count, size_t grain, Body&& body) {
  using Function = std::remove_reference_t<Body>;
  auto call = [](void* context, size_t begin, size_t end) { (*static_cast<Function*>(context))(begin, end); };
  detail::parallel_for(count, grain, call, const_cast<void*>(static_cast<const void*>(std::addressof(body))));
}

}  // namespace nibble
