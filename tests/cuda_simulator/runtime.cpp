// Memory, lazy streams, events and graphs.
#include <cuda_runtime.h>
#include <sys/mman.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <vector>

namespace simulator {

namespace {

std::map<void*, size_t> allocations;

// NIBBLE_SIMULATED_MEMORY is the memory of the GPU in MiB.
size_t device_bytes() {
  const char* wanted = std::getenv("NIBBLE_SIMULATED_MEMORY");
  return static_cast<size_t>(wanted == nullptr ? 4096 : std::atoll(wanted)) << 20;
}
size_t free_bytes() {
  size_t free = device_bytes();
  for (const auto& [memory, bytes] : allocations) free -= bytes;
  return free;
}

void protect(int protection) {
  for (const auto& [memory, bytes] : allocations) mprotect(memory, bytes, protection);
}

// Opens device memory while operations run.
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
      ++done;  // counted before it runs, since it may wait for an event of this stream
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
                                                 std::move(thread)}] { run(launch); });
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
  // NIBBLE_SIMULATED_CAPABILITY=100 makes host code choose as it would on a B200.
  const char* wanted = std::getenv("NIBBLE_SIMULATED_CAPABILITY");
  const int capability = wanted == nullptr ? 90 : std::atoi(wanted);
  std::snprintf(properties->name, sizeof properties->name, "simulated GPU");
  properties->totalGlobalMem = device_bytes();
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
  return value <= 99 * 1024 ? cudaSuccess : error(cudaErrorInvalidValue);  // the limit of an RTX 5090
}
cudaError_t cudaMalloc(void** memory, size_t bytes) {
  if (capturing()) return error(cudaErrorStreamCaptureUnsupported);
  const size_t whole = (std::max<size_t>(bytes, 1) + 4095) / 4096 * 4096;
  void* place = whole > free_bytes() ? MAP_FAILED : mmap(nullptr, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
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
  *total = device_bytes();
  *free = free_bytes();
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
