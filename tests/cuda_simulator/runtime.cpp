// Devices, lazy streams, events and graphs.
#include <cuda_runtime.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <limits>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "counts.h"
#include "runtime.h"

using namespace simulator;

namespace {
Counts counts;
}

// ---- Streams ----

struct Operation {
  std::function<void()> run;
  OperationKind kind;
};
struct CUgraph_st {
  std::vector<Operation> operations;
};
struct CUgraphExec_st {
  std::vector<Operation> operations;
};
struct Capture {
  CUgraph_st* graph;
  std::thread::id thread;
  cudaStreamCaptureMode mode;
  bool spoiled = false;
};
struct CUstream_st {
  std::deque<std::function<void()>> queue;
  uint64_t asked = 0;
  uint64_t done = 0;
  std::optional<Capture> capture;

  void run_until(uint64_t number) {
    if (done >= number) return;
    const Open open;
    while (done < number) {
      const std::function<void()> operation = std::move(queue.front());
      queue.pop_front();
      ++done;  // counted before it runs, since it may wait for an event of this stream
      if (fault() == cudaSuccess) operation();
    }
  }
};
struct CUevent_st {
  CUstream_st* stream = nullptr;
  uint64_t number = 0;
  std::chrono::steady_clock::time_point time;
};

namespace {

// What OperationKind::detail says of an operation that is no kernel.
constexpr size_t copy_detail = 1;  // + cudaMemcpyKind
constexpr size_t clear_detail = 10;

std::vector<CUstream_st*> streams;
cudaError_t last_error = cudaSuccess;
cudaError_t error_of_fault = cudaSuccess;

// Notes that a call is not allowed while `stream` is captured, which then gives no graph.
cudaError_t spoil(CUstream_st& stream) {
  stream.capture->spoiled = true;
  return error(cudaErrorStreamCaptureUnsupported);
}

// Waits for operations of a stream that is not captured.
cudaError_t wait_for(CUstream_st& stream, uint64_t number) {
  if (stream.capture) return spoil(stream);
  stream.run_until(number);
  return fault();
}

// A kernel, or, at the number that is asked for, a fault in its place.
void run_or_fault(const Launch& launch) {
  static long launches = 0;
  static const long faulty = number_of_fault("launch");
  if (++launches < faulty) return run(launch);
  error_of_fault = cudaErrorIllegalAddress;
}

}  // namespace

namespace simulator {

cudaError_t error(cudaError_t value) {
  if (value != cudaSuccess) last_error = value;
  return value;
}

cudaError_t fault() {
  return error_of_fault;
}

cudaError_t refuse_unsafe_call() {
  if (fault() != cudaSuccess) return fault();
  for (CUstream_st* stream : streams) {
    if (!stream->capture || stream->capture->mode == cudaStreamCaptureModeRelaxed) continue;
    const bool own = stream->capture->thread == std::this_thread::get_id();
    if (own || stream->capture->mode == cudaStreamCaptureModeGlobal) return spoil(*stream);
  }
  return cudaSuccess;
}

long number_of_fault(const char* kind) {
  const char* const wanted = std::getenv("NIBBLE_SIMULATED_CUDA_FAULT");
  const std::string text = wanted == nullptr ? "" : wanted;
  const std::string before = std::string(kind) + " ";
  return text.starts_with(before) ? std::atol(text.c_str() + before.size()) : std::numeric_limits<long>::max();
}

cudaError_t enqueue(cudaStream_t stream, std::function<void()> operation, OperationKind kind) {
  if (stream == nullptr) fail("nibble does not use the default stream");
  if (fault() != cudaSuccess) return fault();
  if (stream->capture) {
    stream->capture->graph->operations.push_back({std::move(operation), kind});
    return cudaSuccess;
  }
  stream->queue.push_back(std::move(operation));
  ++stream->asked;
  return cudaSuccess;
}

cudaError_t enqueue_launch(cudaStream_t stream, Launch launch) {
  const size_t threads = size_t{launch.block.x} * launch.block.y * launch.block.z;
  const bool grid_fits = launch.grid.x > 0 && launch.grid.x < (1u << 31) && launch.grid.y > 0 &&
                         launch.grid.y < 65536 && launch.grid.z > 0 && launch.grid.z < 65536;
  if (!grid_fits || threads == 0 || threads > 1024) return error(cudaErrorInvalidConfiguration);
  ++counts.launches;
  const OperationKind kind{launch.function, launch.parameter_bytes};
  return enqueue(
      stream, [launch = std::move(launch)] { run_or_fault(launch); }, kind);
}

}  // namespace simulator

// Environment variables say what this process sees:
//   NIBBLE_SIMULATED_GPUS               how many GPUs (1)
//   NIBBLE_SIMULATED_VISIBLE_DEVICES    their physical numbers ("3" or "2,0"), as CUDA_VISIBLE_DEVICES does; instead
//   NIBBLE_SIMULATED_CAPABILITY         their compute capability: with 100 host code chooses as it would on a B200 (90)
//   NIBBLE_SIMULATED_DEVICE_STATUS      the cudaError_t with which CUDA answers instead (35: the driver is too old)
//   NIBBLE_SIMULATED_DRIVER             the driver's version (13000); 0: there is no driver
namespace {

int from_environment(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::atoi(text);
}

// The physical numbers of the visible GPUs.
std::vector<int> visible_gpus() {
  std::vector<int> numbers;
  if (const char* text = std::getenv("NIBBLE_SIMULATED_VISIBLE_DEVICES"); text != nullptr) {
    for (char* end = nullptr; *text != '\0'; text = *end == ',' ? end + 1 : end) {
      numbers.push_back(static_cast<int>(std::strtol(text, &end, 10)));
      if (end == text) fail("NIBBLE_SIMULATED_VISIBLE_DEVICES holds numbers and commas");
    }
    return numbers;
  }
  for (int i = 0; i < from_environment("NIBBLE_SIMULATED_GPUS", 1); ++i) numbers.push_back(i);
  return numbers;
}

int current_device = 0;

}  // namespace

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 0;
  const auto status = static_cast<cudaError_t>(from_environment("NIBBLE_SIMULATED_DEVICE_STATUS", cudaSuccess));
  if (status != cudaSuccess) return error(status);
  *count = static_cast<int>(visible_gpus().size());
  return *count > 0 ? cudaSuccess : error(cudaErrorNoDevice);
}
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || static_cast<size_t>(device) >= visible_gpus().size()) return error(cudaErrorInvalidDevice);
  current_device = device;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = current_device;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  const std::vector<int> visible = visible_gpus();
  if (device < 0 || static_cast<size_t>(device) >= visible.size()) return error(cudaErrorInvalidDevice);
  *properties = {};
  const int capability = from_environment("NIBBLE_SIMULATED_CAPABILITY", 90);
  std::snprintf(properties->name, sizeof properties->name, "simulated GPU");
  const int physical = visible[static_cast<size_t>(device)];
  std::memset(&properties->uuid, 0x51, sizeof properties->uuid);
  std::memcpy(&properties->uuid, &physical, sizeof physical);
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
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  ++counts.copies;
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if (bytes > 0 && (is_device_memory(to, bytes) != to_device || is_device_memory(from, bytes) != from_device)) {
    return error(cudaErrorInvalidValue);
  }
  const bool pageable =
      (!to_device && !is_pinned_memory(to, bytes)) || (!from_device && !is_pinned_memory(from, bytes));
  if (pageable && stream->capture) return spoil(*stream);
  return enqueue(stream, [to, from, bytes] { std::memcpy(to, from, bytes); },
                 {nullptr, copy_detail + static_cast<size_t>(kind)});
}
cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t stream) {
  ++counts.copies;
  if (bytes > 0 && !is_device_memory(memory, bytes)) return error(cudaErrorInvalidValue);
  return enqueue(stream, [memory, value, bytes] { std::memset(memory, value, bytes); }, {nullptr, clear_detail});
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  if (fault() != cudaSuccess) return fault();
  *stream = new CUstream_st;
  streams.push_back(*stream);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  stream->run_until(stream->asked);
  streams.erase(std::find(streams.begin(), streams.end(), stream));
  delete stream;
  return fault();
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  ++counts.waits;
  return wait_for(*stream, stream->asked);
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  return wait_for(*stream, stream->asked);
}
cudaError_t cudaDeviceSynchronize() {
  ++counts.waits;
  for (CUstream_st* stream : streams) {
    if (const cudaError_t status = wait_for(*stream, stream->asked); status != cudaSuccess) return status;
  }
  return fault();
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  if (fault() != cudaSuccess) return fault();
  *event = new CUevent_st;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  if (event->stream != nullptr) event->stream->run_until(event->number);
  delete event;
  return fault();
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  if (stream->capture) return spoil(*stream);  // CUDA would allow it; nibble does not need it
  event->stream = stream;
  event->number = stream->asked + 1;
  return enqueue(stream, [event] { event->time = std::chrono::steady_clock::now(); });
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  if (event->stream == nullptr) return fault();
  if (stream->capture) {  // an event that was not captured with the stream
    spoil(*stream);
    return error(cudaErrorStreamCaptureIsolation);
  }
  return enqueue(stream, [other = event->stream, number = event->number] { other->run_until(number); });
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  ++counts.event_waits;
  if (const cudaError_t status = refuse_unsafe_call(); status != cudaSuccess) return status;
  return event->stream == nullptr ? cudaSuccess : wait_for(*event->stream, event->number);
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  return cudaEventSynchronize(event);
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  *milliseconds = std::chrono::duration<float, std::milli>(end->time - begin->time).count();
  return fault();
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  if (fault() != cudaSuccess) return fault();
  if (stream->capture) return error(cudaErrorInvalidValue);
  stream->capture = Capture{.graph = new CUgraph_st, .thread = std::this_thread::get_id(), .mode = mode};
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = nullptr;
  if (!stream->capture) return error(cudaErrorInvalidValue);
  if (stream->capture->thread != std::this_thread::get_id() && stream->capture->mode != cudaStreamCaptureModeRelaxed) {
    return error(cudaErrorStreamCaptureWrongThread);
  }
  const Capture capture = *std::exchange(stream->capture, std::nullopt);
  if (fault() == cudaSuccess && !capture.spoiled) {
    *graph = capture.graph;
    return cudaSuccess;
  }
  delete capture.graph;
  return fault() != cudaSuccess ? fault() : error(cudaErrorStreamCaptureInvalidated);
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  if (fault() != cudaSuccess) return fault();
  *executable = new CUgraphExec_st{graph->operations};
  return cudaSuccess;
}
// Operations may change their arguments, and nothing else. (CUDA would also take another kernel.)
cudaError_t cudaGraphExecUpdate(cudaGraphExec_t executable, cudaGraph_t graph, cudaGraphExecUpdateResultInfo* result) {
  if (fault() != cudaSuccess) return fault();
  const bool same =
      std::equal(executable->operations.begin(), executable->operations.end(), graph->operations.begin(),
                 graph->operations.end(), [](const Operation& a, const Operation& b) { return a.kind == b.kind; });
  result->result = same ? cudaGraphExecUpdateSuccess : cudaGraphExecUpdateError;
  if (!same) return error(cudaErrorGraphExecUpdateFailure);
  executable->operations = graph->operations;
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  return enqueue(stream, [operations = executable->operations] {
    for (const Operation& operation : operations) {
      if (fault() == cudaSuccess) operation.run();
    }
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
  const cudaError_t last = std::exchange(last_error, cudaSuccess);
  return fault() != cudaSuccess ? fault() : last;
}
cudaError_t cudaPeekAtLastError() {
  return fault() != cudaSuccess ? fault() : last_error;
}
const char* cudaGetErrorString(cudaError_t value) {
  switch (value) {
    case cudaSuccess: return "no error";
    case cudaErrorInsufficientDriver: return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    case cudaErrorSystemNotReady: return "system not yet initialized";
    case cudaErrorIllegalAddress: return "an illegal memory access was encountered";
    default: return "simulated error";
  }
}
const char* cudaGetErrorName(cudaError_t value) {
  switch (value) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration: return "cudaErrorInvalidConfiguration";
    case cudaErrorIllegalAddress: return "cudaErrorIllegalAddress";
    case cudaErrorStreamCaptureUnsupported: return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureInvalidated: return "cudaErrorStreamCaptureInvalidated";
    case cudaErrorInsufficientDriver: return "cudaErrorInsufficientDriver";
    case cudaErrorSystemNotReady: return "cudaErrorSystemNotReady";
    default: return "another cudaError_t";
  }
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = from_environment("NIBBLE_SIMULATED_DRIVER", 13000);
  return cudaSuccess;
}
