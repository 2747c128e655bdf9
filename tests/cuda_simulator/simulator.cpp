#include <cuda_runtime.h>
#include <sys/mman.h>

#include <boost/context/fiber.hpp>
#include <boost/context/fixedsize_stack.hpp>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

namespace context = boost::context;

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace simulator {
namespace {

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "CUDA simulator: %s\n", what);
  std::abort();
}

// What lanes of a warp do together, by the mask that they name.
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
  // Not the order of their numbers, and another one each time: a permutation i -> (a i + b) mod blocks.
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

// ---- Memory ----

namespace {

std::map<void*, size_t> allocations;

void protect(int protection) {
  for (const auto& [memory, bytes] : allocations) mprotect(memory, bytes, protection);
}

// While operations run, device memory can be touched.
class Open {
 public:
  Open() {
    if (depth_++ == 0) protect(PROT_READ | PROT_WRITE);
  }
  ~Open() {
    if (--depth_ == 0) protect(PROT_NONE);
  }
  Open(const Open&) = delete;
  Open& operator=(const Open&) = delete;

 private:
  static int depth_;
};
int Open::depth_ = 0;

}  // namespace
}  // namespace simulator

using namespace simulator;

int __syncthreads_or(int predicate) {
  return block.synchronize_or(predicate);
}
void __trap() {
  fail("__trap()");
}

// ---- Streams ----

struct CUgraph_st {
  std::vector<std::function<void()>> operations;
};
struct CUgraphExec_st {
  std::vector<std::function<void()>> operations;
};
struct CUstream_st {
  std::deque<std::function<void()>> queue;
  uint64_t asked = 0;
  uint64_t done = 0;
  CUgraph_st* capture = nullptr;

  void run_until(uint64_t number) {
    if (done >= number) return;
    const Open open;
    while (done < number) {
      const std::function<void()> operation = std::move(queue.front());
      queue.pop_front();
      ++done;  // before it runs, since it may wait for an event of this stream
      operation();
    }
  }
};
struct CUevent_st {
  CUstream_st* stream = nullptr;
  uint64_t number = 0;
  std::chrono::steady_clock::time_point time;
};

namespace {

std::vector<CUstream_st*> streams;
cudaError_t last_error = cudaSuccess;

cudaError_t error(cudaError_t value) {
  if (value != cudaSuccess) last_error = value;
  return value;
}

bool capturing() {
  for (const CUstream_st* stream : streams) {
    if (stream->capture != nullptr) return true;
  }
  return false;
}

}  // namespace

namespace simulator {

cudaError_t enqueue(cudaStream_t stream, std::function<void()> operation) {
  if (stream == nullptr) fail("nibble does not use the default stream");
  if (stream->capture != nullptr) {
    stream->capture->operations.push_back(std::move(operation));
    return cudaSuccess;
  }
  stream->queue.push_back(std::move(operation));
  ++stream->asked;
  return cudaSuccess;
}

cudaError_t enqueue_launch(const cudaLaunchConfig_t& config, std::function<void()> thread) {
  const size_t threads = size_t{config.blockDim.x} * config.blockDim.y * config.blockDim.z;
  const bool grid_fits = config.gridDim.x > 0 && config.gridDim.x < (1u << 31) && config.gridDim.y > 0 &&
                         config.gridDim.y < 65536 && config.gridDim.z > 0 && config.gridDim.z < 65536;
  if (!grid_fits || threads == 0 || threads > 1024) return error(cudaErrorInvalidConfiguration);
  return enqueue(config.stream, [launch = Launch{config.gridDim, config.blockDim, config.dynamicSmemBytes,
                                                 std::move(thread)}] { block.run(launch); });
}

}  // namespace simulator

cudaError_t cudaGetDeviceCount(int* count) {
  const char* wanted = std::getenv("NIBBLE_SIMULATED_GPUS");
  *count = wanted == nullptr ? 1 : std::atoi(wanted);
  return *count > 0 ? cudaSuccess : error(cudaErrorNoDevice);
}
cudaError_t cudaSetDevice(int) {
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {};
  // NIBBLE_SIMULATED_CAPABILITY=100 makes host code choose what it would on a B200.
  const char* wanted = std::getenv("NIBBLE_SIMULATED_CAPABILITY");
  const int capability = wanted == nullptr ? 90 : std::atoi(wanted);
  std::snprintf(properties->name, sizeof properties->name, "simulated GPU");
  properties->totalGlobalMem = size_t{4} << 30;
  properties->sharedMemPerBlockOptin = 99 * 1024;
  properties->major = capability / 10;
  properties->minor = capability % 10;
  properties->multiProcessorCount = 2;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = 0;
  return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  *attributes = {};
  return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int value) {
  return value <= 99 * 1024 ? cudaSuccess : error(cudaErrorInvalidValue);  // what an RTX 5090 has
}
cudaError_t cudaMalloc(void** memory, size_t bytes) {
  if (capturing()) return error(cudaErrorStreamCaptureUnsupported);
  const size_t whole = (std::max<size_t>(bytes, 1) + 4095) / 4096 * 4096;
  void* place =
      whole > (size_t{4} << 30) ? MAP_FAILED : mmap(nullptr, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (place == MAP_FAILED) return error(cudaErrorMemoryAllocation);
  allocations[place] = whole;
  *memory = place;
  return cudaSuccess;
}
cudaError_t cudaFree(void* memory) {
  if (memory == nullptr) return cudaSuccess;
  cudaDeviceSynchronize();
  const auto found = allocations.find(memory);
  if (found == allocations.end()) return error(cudaErrorInvalidValue);
  munmap(memory, found->second);
  allocations.erase(found);
  return cudaSuccess;
}
cudaError_t cudaHostAlloc(void** memory, size_t bytes, unsigned) {
  *memory = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
  return *memory == nullptr ? error(cudaErrorMemoryAllocation) : cudaSuccess;
}
cudaError_t cudaFreeHost(void* memory) {
  cudaDeviceSynchronize();
  std::free(memory);
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *total = size_t{4} << 30;
  *free = *total;
  for (const auto& [memory, bytes] : allocations) *free -= bytes;
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  return enqueue(stream, [to, from, bytes] { std::memcpy(to, from, bytes); });
}
cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t stream) {
  return enqueue(stream, [memory, value, bytes] { std::memset(memory, value, bytes); });
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new CUstream_st;
  streams.push_back(*stream);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  cudaStreamSynchronize(stream);
  streams.erase(std::find(streams.begin(), streams.end(), stream));
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (stream->capture != nullptr) return error(cudaErrorStreamCaptureUnsupported);
  stream->run_until(stream->asked);
  return cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  stream->run_until(stream->asked);
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
  for (CUstream_st* stream : streams) stream->run_until(stream->asked);
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new CUevent_st;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  cudaEventSynchronize(event);
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  if (stream->capture != nullptr) return error(cudaErrorStreamCaptureUnsupported);
  event->stream = stream;
  event->number = stream->asked + 1;
  return enqueue(stream, [event] { event->time = std::chrono::steady_clock::now(); });
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  if (event->stream == nullptr) return cudaSuccess;
  return enqueue(stream, [other = event->stream, number = event->number] { other->run_until(number); });
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (event->stream != nullptr) event->stream->run_until(event->number);
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  return cudaEventSynchronize(event);
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  *milliseconds = std::chrono::duration<float, std::milli>(end->time - begin->time).count();
  return cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  stream->capture = new CUgraph_st;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = std::exchange(stream->capture, nullptr);
  return *graph != nullptr ? cudaSuccess : error(cudaErrorStreamCaptureUnsupported);
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  *executable = new CUgraphExec_st{graph->operations};
  return cudaSuccess;
}
cudaError_t cudaGraphExecUpdate(cudaGraphExec_t executable, cudaGraph_t graph, cudaGraphExecUpdateResultInfo* result) {
  const bool same = executable->operations.size() == graph->operations.size();
  result->result = same ? cudaGraphExecUpdateSuccess : cudaGraphExecUpdateError;
  if (same) executable->operations = graph->operations;
  return same ? cudaSuccess : error(cudaErrorInvalidValue);
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  return enqueue(stream, [operations = executable->operations] {
    for (const auto& operation : operations) operation();
  });
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  delete executable;
  return cudaSuccess;
}
cudaError_t cudaGetLastError() {
  return std::exchange(last_error, cudaSuccess);
}
cudaError_t cudaPeekAtLastError() {
  return last_error;
}
const char* cudaGetErrorString(cudaError_t value) {
  return value == cudaSuccess ? "no error" : "simulated error";
}
const char* cudaGetErrorName(cudaError_t value) {
  switch (value) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration: return "cudaErrorInvalidConfiguration";
    case cudaErrorStreamCaptureUnsupported: return "cudaErrorStreamCaptureUnsupported";
    default: return "another cudaError_t";
  }
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
