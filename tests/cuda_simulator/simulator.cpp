// Runs the threads of a block as fibers, with their barriers and warp operations.
#include <cuda_runtime.h>

#include <boost/context/fiber.hpp>
#include <boost/context/fixedsize_stack.hpp>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

namespace context = boost::context;

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace simulator {

void fail(const char* what) {
  std::fprintf(stderr, "CUDA simulator: %s\n", what);
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
  uint3 index{};        // in the block
  unsigned number = 0;  // in the block
  bool ended = false;
  bool progressed = false;
  context::fiber fiber;
  context::fiber scheduler;
};

class Block {
 public:
  void run(const Launch& launch);
  void synchronize();
  int synchronize_or(int predicate);
  const uint64_t* exchange(unsigned mask, uint64_t value);
  void* shared() { return shared_.data(); }
  unsigned lane() const { return self().number % 32; }

 private:
  SimulatedThread& self() const { return *current_; }
  void yield();
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

void Block::prepare(size_t threads) {
  while (threads_.size() < threads) {
    threads_.push_back(std::make_unique<SimulatedThread>());
    SimulatedThread* thread = threads_.back().get();
    thread->number = static_cast<unsigned>(threads_.size() - 1);
    thread->fiber = context::fiber(std::allocator_arg, context::fixedsize_stack(stack_bytes),
                                   [this, thread](context::fiber&& scheduler) {
                                     thread->scheduler = std::move(scheduler);
                                     for (;;) {
                                       launch_->thread();
                                       thread->ended = true;
                                       thread->progressed = true;
                                       yield();
                                     }
                                     return context::fiber();
                                   });
  }
}

void Block::run_block(const Launch& launch, uint3 index) {
  blockIdx = index;
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
      if (thread.ended) continue;
      thread.progressed = false;
      current_ = &thread;
      threadIdx = thread.index;
      thread.fiber = std::move(thread.fiber).resume();
      progress = progress || thread.progressed;
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
  gridDim = launch.grid;
  blockDim = launch.block;
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
  SimulatedThread& own = self();
  own.progressed = true;
  const uint64_t generation = barriers_;
  if (++waiting_ == count_) {
    waiting_ = 0;
    last_any_ = any_;
    any_ = 0;
    ++barriers_;
    return;
  }
  while (barriers_ == generation) yield(), own.progressed = barriers_ != generation;
}

int Block::synchronize_or(int predicate) {
  any_ |= predicate != 0 ? 1 : 0;
  synchronize();
  const int result = last_any_;
  synchronize();
  return result;
}

const uint64_t* Block::exchange(unsigned mask, uint64_t value) {
  SimulatedThread& own = self();
  own.progressed = true;
  const unsigned lane = own.number % 32;
  if ((mask >> lane & 1u) == 0) fail("a lane takes part in a warp operation whose mask leaves it out");
  Meeting& meeting = warps_[own.number / 32].meetings[mask];
  unsigned expected = mask;
  if (count_ - own.number / 32 * 32 < 32) expected &= (1u << (count_ % 32)) - 1;
  meeting.given[lane] = value;
  meeting.arrived |= 1u << lane;
  const uint64_t generation = meeting.generation;
  if (meeting.arrived == expected) {
    std::copy(std::begin(meeting.given), std::end(meeting.given), std::begin(meeting.result));
    std::fill(std::begin(meeting.given), std::end(meeting.given), 0);
    meeting.arrived = 0;
    ++meeting.generation;
  } else {
    while (meeting.generation == generation) yield(), own.progressed = meeting.generation != generation;
  }
  return meeting.result;
}

}  // namespace

void* dynamic_shared_memory() {
  return block.shared();
}
void synchronize_block() {
  block.synchronize();
}
const uint64_t* exchange_in_warp(unsigned mask, uint64_t value) {
  return block.exchange(mask, value);
}
unsigned lane() {
  return block.lane();
}

void run(const Launch& launch) {
  block.run(launch);
}

}  // namespace simulator

int __syncthreads_or(int predicate) {
  return simulator::block.synchronize_or(predicate);
}
void __trap() {
  simulator::fail("__trap()");
}
