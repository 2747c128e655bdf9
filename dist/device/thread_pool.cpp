#include "dist/device/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "dist/base/error.h"
#include "dist/base/signals.h"

namespace nibble {
namespace {

using BodyFunction = void (*)(void* context, size_t begin, size_t end);

// About 50 microseconds, which is longer than the gap between two operators of a layer and longer than waking a parked
// thread.
constexpr int spin_pauses = 4000;

void pause_briefly() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

thread_local int thread_index = 0;
thread_local bool inside_region = false;

void run_serially(size_t count, size_t grain, BodyFunction body, void* context) {
  for (size_t begin = 0; begin < count;) {
    const size_t end = count - begin < grain ? count : begin + grain;
    body(context, begin, end);
    begin = end;
  }
}

// A worker joins the open job if it comes in time; the caller closes the job when all chunks are handed out and waits
// only for workers that joined. A worker that is parked or preempted therefore delays nobody. The padding keeps data
// that different threads write on different cache lines.
class Pool {  // NOLINT(clang-analyzer-optin.performance.Padding)
 public:
  Pool(int threads, bool spin) : spin_(spin ? spin_pauses : 0) {
    const BlockSignals block;
    for (int index = 1; index < threads; ++index) workers_.emplace_back([this, index] { serve(index); });
  }
  ~Pool() {
    quit_.store(true);
    epoch_.fetch_add(1);
    epoch_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  void run(size_t count, size_t grain, BodyFunction body, void* context) {
    job_ = Job{count, grain, div_ceil(count, grain), body, context};
    failure_ = nullptr;
    failed_chunk_ = job_.chunks;
    next_chunk_.store(0, std::memory_order_relaxed);
    members_.store(open_bit, std::memory_order_release);
    epoch_.fetch_add(1, std::memory_order_release);
    epoch_.notify_all();
    take_chunks();
    close_and_wait();
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
  }

 private:
  static constexpr uint32_t open_bit = 1u << 31;

  struct Job {
    size_t count, grain, chunks;
    BodyFunction body;
    void* context;
  };

  void serve(int index) {
    thread_index = index;
    uint32_t seen = 0;
    for (;;) {
      for (int pauses = 0; epoch_.load(std::memory_order_acquire) == seen; ++pauses) {
        if (pauses < spin_) {
          pause_briefly();
        } else {
          epoch_.wait(seen, std::memory_order_acquire);
        }
      }
      seen = epoch_.load(std::memory_order_acquire);
      if (quit_.load()) return;
      if (!join()) continue;
      take_chunks();
      if (members_.fetch_sub(1, std::memory_order_acq_rel) == 1) members_.notify_all();
    }
  }

  bool join() {
    uint32_t members = members_.load(std::memory_order_acquire);
    while ((members & open_bit) != 0) {
      if (members_.compare_exchange_weak(members, members + 1, std::memory_order_acq_rel)) return true;
    }
    return false;
  }

  void close_and_wait() {
    uint32_t members = members_.fetch_and(~open_bit, std::memory_order_acq_rel) & ~open_bit;
    for (int pauses = 0; members != 0; ++pauses) {
      if (pauses < spin_) {
        pause_briefly();
      } else {
        members_.wait(members, std::memory_order_acquire);
      }
      members = members_.load(std::memory_order_acquire);
    }
  }

  // Chunks are handed out in ascending order, and a failure stops the handing out. Every chunk below the failed one
  // runs, so that on any number of threads the failure of the lowest chunk is the one reported.
  void take_chunks() {
    inside_region = true;
    for (;;) {
      const size_t chunk = next_chunk_.fetch_add(1, std::memory_order_relaxed);
      if (chunk >= job_.chunks) break;
      const size_t begin = chunk * job_.grain;
      try {
        job_.body(job_.context, begin, begin + std::min(job_.grain, job_.count - begin));
      } catch (...) {
        const std::lock_guard lock(failure_mutex_);
        next_chunk_.store(job_.chunks, std::memory_order_relaxed);
        if (chunk < failed_chunk_) {
          failed_chunk_ = chunk;
          failure_ = std::current_exception();
        }
      }
    }
    inside_region = false;
  }

  const int spin_;
  Job job_{};
  std::mutex failure_mutex_;
  std::exception_ptr failure_;
  size_t failed_chunk_ = 0;
  std::atomic<bool> quit_{false};
  alignas(64) std::atomic<uint32_t> epoch_{0};    // number of the latest job; workers park here
  alignas(64) std::atomic<uint32_t> members_{0};  // open_bit, and workers inside the job; the caller parks here
  alignas(64) std::atomic<size_t> next_chunk_{0};
  std::vector<std::thread> workers_;  // the last member, because a worker uses all the others
};

std::mutex pool_mutex;  // held by the thread that uses or replaces the pool
std::unique_ptr<Pool> pool;
std::atomic<int> pool_threads{1};

}  // namespace

void set_compute_threads(int threads, int ranks_on_node) {
  constexpr int most_threads = 4096;
  NIBBLE_CHECK(threads >= 1 && threads <= most_threads, "number of compute threads");
  NIBBLE_CHECK(!inside_region, "set_compute_threads inside parallel_for");
  const bool oversubscribed = threads > available_threads(ranks_on_node);
  const std::lock_guard lock(pool_mutex);
  pool.reset();
  if (threads > 1) pool = std::make_unique<Pool>(threads, !oversubscribed);
  pool_threads = threads;
}

int compute_threads() {
  return pool_threads;
}

int current_compute_thread() {
  return thread_index;
}

namespace detail {

void parallel_for(size_t count, size_t grain, BodyFunction body, void* context) {
  if (count == 0) return;
  NIBBLE_CHECK(grain > 0, "parallel_for needs a positive grain");
  if (count <= grain || inside_region) return run_serially(count, grain, body, context);
  // If another thread is using the pool, this one works alone.
  std::unique_lock lock(pool_mutex, std::try_to_lock);
  if (lock.owns_lock() && pool != nullptr) return pool->run(count, grain, body, context);
  if (lock.owns_lock()) lock.unlock();
  run_serially(count, grain, body, context);
}

}  // namespace detail
}  // namespace nibble
