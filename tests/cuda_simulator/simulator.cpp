// Runs the threads of a block as fibers, with their barriers and warp operations.
#include <cuda_runtime.h>

#include <algorithm>
#include <boost/context/fiber.hpp>
#include <boost/context/fixedsize_stack.hpp>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "accesses.h"

namespace context = boost::context;

// What the kernels see as constants.
uint3 thread_index __asm__("threadIdx");
uint3 block_index __asm__("blockIdx");
uint3 block_size __asm__("blockDim");
uint3 grid_size __asm__("gridDim");

namespace simulator {

void fail(const std::string& what) {
  std::fprintf(stderr, "CUDA simulator: %s\n", what.c_str());
  std::abort();
}

namespace {

// An operation of the lanes of a warp, which name each other by a mask.
struct Meeting {
  unsigned mask = 0;
  unsigned arrived = 0;
  uint64_t generation = 0;
  uint64_t given[32] = {};
  uint64_t result[32] = {};
};

struct Warp {
  std::map<unsigned, Meeting> meetings;
};

struct SimulatedThread {
  uint3 index{};  // in the block
  CheckedThread checked;
  bool ended = false;
  // What it waits for: that the number is no longer `seen`. Null: it does not wait.
  const uint64_t* awaited = nullptr;
  uint64_t seen = 0;
  context::fiber fiber;
  context::fiber scheduler;

  bool can_run() const { return !ended && (awaited == nullptr || *awaited != seen); }
};

class Block {
 public:
  void run(const Launch& launch);
  void synchronize();
  int synchronize_or(int predicate);
  // `orders`: what the lanes did before happens before what they do after.
  const uint64_t* exchange(unsigned mask, uint64_t value, bool orders = false);
  void check(bool accesses) { check_accesses_of(accesses ? &self().checked : nullptr); }
  void* shared() { return shared_.data(); }
  unsigned lane() const { return self().checked.number % 32; }

 private:
  SimulatedThread& self() const { return *current_; }
  void yield();
  void wait_for_change(const uint64_t& number);
  void run_block(const Launch& launch, uint3 index);
  void prepare(size_t threads);

  static constexpr size_t stack_bytes = 128 * 1024;
  std::vector<std::unique_ptr<SimulatedThread>> threads_;
  std::vector<Warp> warps_;
  std::vector<uint4> shared_;
  const Launch* launch_ = nullptr;
  SimulatedThread* current_ = nullptr;
  size_t count_ = 0;
  unsigned waiting_ = 0;
  uint64_t barriers_ = 0;
  int any_ = 0, last_any_ = 0;
  std::mt19937 order_{12345};
};

Block block;

void Block::yield() {
  SimulatedThread& own = self();
  own.scheduler = std::move(own.scheduler).resume();
}

void Block::wait_for_change(const uint64_t& number) {
  SimulatedThread& own = self();
  own.awaited = &number;
  own.seen = number;
  yield();
  own.awaited = nullptr;
}

void Block::prepare(size_t threads) {
  while (threads_.size() < threads) {
    threads_.push_back(std::make_unique<SimulatedThread>());
    SimulatedThread* thread = threads_.back().get();
    context::fixedsize_stack allocator(stack_bytes);
    const context::stack_context stack = allocator.allocate();
    // The stacks begin at different places in their pages, so that their ends do not share the same cache lines.
    const size_t before = threads_.size() % 64 * 7 * 64;
    void* const begin = static_cast<std::byte*>(stack.sp) - before;
    thread->checked.stack = {reinterpret_cast<uintptr_t>(stack.sp) - stack.size, stack.size};
    thread->checked.number = static_cast<unsigned>(threads_.size() - 1);
    thread->fiber = context::fiber(std::allocator_arg, context::preallocated(begin, stack.size - before, stack),
                                   allocator, [this, thread](context::fiber&& scheduler) {
                                     thread->scheduler = std::move(scheduler);
                                     for (;;) {
                                       launch_->thread();
                                       thread->ended = true;
                                       yield();
                                     }
                                     return context::fiber();
                                   });
  }
}

void Block::run_block(const Launch& launch, uint3 index) {
  block_index = index;
  begin_block();
  waiting_ = 0;
  warps_.assign((count_ + 31) / 32, {});
  std::fill(shared_.begin(), shared_.end(), make_uint4(0x7FA00001u, 0x7FA00001u, 0x7FA00001u, 0x7FA00001u));
  for (size_t i = 0; i < count_; ++i) {
    SimulatedThread& thread = *threads_[i];
    const auto n = static_cast<unsigned>(i);
    thread.index = {n % launch.block.x, n / launch.block.x % launch.block.y, n / launch.block.x / launch.block.y};
    thread.ended = false;
  }
  std::vector<size_t> order(count_);
  std::iota(order.begin(), order.end(), size_t{0});
  std::shuffle(order.begin(), order.end(), order_);
  size_t left = count_;
  while (left > 0) {
    bool progress = false;
    for (const size_t i : order) {
      SimulatedThread& thread = *threads_[i];
      if (!thread.can_run()) continue;
      progress = true;
      current_ = &thread;
      thread_index = thread.index;
      thread.fiber = std::move(thread.fiber).resume();
      if (thread.ended) --left;
    }
    if (!progress) fail("deadlock: threads of a block wait at a barrier or warp operation that others never reach");
    if (waiting_ > 0 && left < count_ && waiting_ == left) fail("__syncthreads() after some threads have returned");
  }
  current_ = nullptr;
}

void Block::run(const Launch& launch) {
  launch_ = &launch;
  count_ = size_t{launch.block.x} * launch.block.y * launch.block.z;
  if (count_ == 0 || count_ > 1024) fail("a block has 1 to 1024 threads");
  if (launch.shared_bytes > 227 * 1024) fail("more shared memory than any GPU has");
  prepare(count_);
  shared_.resize((launch.shared_bytes + sizeof(uint4) - 1) / sizeof(uint4));
  grid_size = {launch.grid.x, launch.grid.y, launch.grid.z};
  block_size = {launch.block.x, launch.block.y, launch.block.z};
  begin_launch(launch.function, {reinterpret_cast<uintptr_t>(shared_.data()), launch.shared_bytes});
  const size_t blocks = size_t{launch.grid.x} * launch.grid.y * launch.grid.z;
  // The blocks do not run in the order of their numbers, and in another one each time: a permutation i -> (a i + b) mod
  // blocks.
  size_t step = blocks > 2 ? order_() % blocks : 1;
  while (std::gcd(step, blocks) != 1) ++step;
  size_t at = blocks > 0 ? order_() % blocks : 0;
  for (size_t i = 0; i < blocks; ++i, at = (at + step) % blocks) {
    const auto n = at;
    run_block(launch,
              {static_cast<unsigned>(n % launch.grid.x), static_cast<unsigned>(n / launch.grid.x % launch.grid.y),
               static_cast<unsigned>(n / launch.grid.x / launch.grid.y)});
  }
}

void Block::synchronize() {
  if (++waiting_ < count_) return wait_for_change(barriers_);
  waiting_ = 0;
  last_any_ = any_;
  any_ = 0;
  ++barriers_;
  order_block();
}

int Block::synchronize_or(int predicate) {
  any_ |= predicate != 0 ? 1 : 0;
  synchronize();
  const int result = last_any_;
  synchronize();
  return result;
}

const uint64_t* Block::exchange(unsigned mask, uint64_t value, bool orders) {
  const SimulatedThread& own = self();
  const unsigned lane = own.checked.number % 32;
  if ((mask >> lane & 1u) == 0) fail("a lane takes part in a warp operation whose mask leaves it out");
  Meeting& meeting = warps_[own.checked.number / 32].meetings[mask];
  unsigned expected = mask;
  if (count_ - own.checked.number / 32 * 32 < 32) expected &= (1u << (count_ % 32)) - 1;
  meeting.given[lane] = value;
  meeting.arrived |= 1u << lane;
  if (meeting.arrived == expected) {
    std::copy(std::begin(meeting.given), std::end(meeting.given), std::begin(meeting.result));
    std::fill(std::begin(meeting.given), std::end(meeting.given), 0);
    meeting.arrived = 0;
    ++meeting.generation;
    if (orders) order_warp(own.checked.number / 32);
  } else {
    wait_for_change(meeting.generation);
  }
  return meeting.result;
}

// While one of the simulator's functions runs for a kernel, accesses are not checked: it has memory of its own.
class Unchecked {
 public:
  Unchecked() { block.check(false); }
  ~Unchecked() { block.check(true); }
  Unchecked(const Unchecked&) = delete;
  Unchecked& operator=(const Unchecked&) = delete;
};

}  // namespace

void* dynamic_shared_memory() {
  return block.shared();
}
void synchronize_block() {
  const Unchecked unchecked;
  block.synchronize();
}
void synchronize_warp(unsigned mask) {
  const Unchecked unchecked;
  block.exchange(mask, 0, true);
}
uint64_t shuffle(unsigned mask, uint64_t value, unsigned source) {
  const Unchecked unchecked;
  return block.exchange(mask, value)[source];
}
unsigned lane() {
  return block.lane();
}
void begin_kernel() {
  block.check(true);
}
void end_kernel() {
  block.check(false);
}

void run(const Launch& launch) {
  block.run(launch);
}

}  // namespace simulator

int __syncthreads_or(int predicate) {
  const simulator::Unchecked unchecked;
  return simulator::block.synchronize_or(predicate);
}
unsigned __ballot_sync(unsigned mask, int predicate) {
  const simulator::Unchecked unchecked;
  const uint64_t* const all = simulator::block.exchange(mask, predicate != 0 ? 1 : 0);
  unsigned result = 0;
  for (unsigned lane = 0; lane < 32; ++lane) result |= static_cast<unsigned>(all[lane]) << lane;
  return result;
}
unsigned __reduce_max_sync(unsigned mask, unsigned value) {
  const simulator::Unchecked unchecked;
  const uint64_t* const all = simulator::block.exchange(mask, value);
  return static_cast<unsigned>(*std::max_element(all, all + 32));
}
unsigned __reduce_add_sync(unsigned mask, unsigned value) {
  const simulator::Unchecked unchecked;
  const uint64_t* const all = simulator::block.exchange(mask, value);
  unsigned sum = 0;
  for (unsigned lane = 0; lane < 32; ++lane) sum += static_cast<unsigned>(all[lane]);
  return sum;
}
void __trap() {
  simulator::fail("__trap()");
}
