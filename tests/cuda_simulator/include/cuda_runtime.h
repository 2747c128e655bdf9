// The part of CUDA that nibble uses, executed on the CPU: .cu files compile against this header as plain C++. It lets
// the tests run every kernel, bit by bit, where there is no GPU; it says nothing about speed, about what ptxas makes of
// a kernel, or about the memory model beyond barriers.
//
// It is strict about the following, so that faults show:
//   - Device memory can be touched by kernels and copies only; the host gets a segmentation fault.
//   - Streams are lazy: an operation runs when the host waits for it, not before. A host that reads too early reads old
//     bytes; a stream that forgets to wait for an event runs too early.
//   - Blocks, and the threads between two barriers, run in a shuffled order.
//   - A barrier or warp operation that some of its threads never reach ends the program with a message.
//   - Shared memory holds garbage (signalling NaNs) at the start of a block, if it is dynamic; else the values of the
//     block before.
//   - Where the compiler makes a call of each load and store of the .cu files (see accesses.cpp), a kernel that touches
//     memory that is not its own, at an address that is not aligned to the type, or shared memory in a race, ends the
//     program with a message.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <type_traits>
#include <utility>

#include "vector_types.h"

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __shared__ static thread_local  // so that it lies apart from the variables of the host
#define __forceinline__ inline __attribute__((always_inline))
#define __grid_constant__
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)

namespace simulator {

void* dynamic_shared_memory();
void synchronize_block();
void synchronize_warp(unsigned mask);
// Lanes of a warp exchange numbers: each lane of `mask` gives `value`, and gets what `source` gave (zero outside the
// mask).
uint64_t shuffle(unsigned mask, uint64_t value, unsigned source);
unsigned lane();

struct Launch {
  dim3 grid, block;
  size_t shared_bytes = 0;
  std::function<void()> thread;  // the body of one thread
  const void* function = nullptr;
  size_t parameter_bytes = 0;
};
void run(const Launch& launch);
// The body of a thread calls these around the kernel.
void begin_kernel();
void end_kernel();
[[noreturn]] void fail(const std::string& what);

}  // namespace simulator

// The indices of the running thread. They are constants, as a kernel sees them; the simulator changes them from thread
// to thread.
extern const uint3 threadIdx, blockIdx, blockDim, gridDim;
constexpr int warpSize = 32;

inline void __syncthreads() {
  simulator::synchronize_block();
}
inline void __syncwarp(unsigned mask = 0xFFFFFFFFu) {
  simulator::synchronize_warp(mask);
}
inline void __threadfence() {}
inline void __threadfence_block() {}
int __syncthreads_or(int predicate);

namespace simulator {
template <class T>
uint64_t to_bits(T value) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  return bits;
}
template <class T>
T from_bits(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
template <class T>
T shuffle_if(bool inside, unsigned mask, T value, unsigned source) {
  const uint64_t given = shuffle(mask, to_bits(value), inside ? source : lane());
  return inside ? from_bits<T>(given) : value;
}
}  // namespace simulator

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  const unsigned first = simulator::lane() / static_cast<unsigned>(width) * static_cast<unsigned>(width);
  return simulator::shuffle_if(true, mask, value, first + static_cast<unsigned>(source) % static_cast<unsigned>(width));
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32) {
  const unsigned own = simulator::lane();
  const unsigned source = own ^ static_cast<unsigned>(lane_mask);
  const bool inside = source / static_cast<unsigned>(width) == own / static_cast<unsigned>(width);
  return simulator::shuffle_if(inside, mask, value, source);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const unsigned own = simulator::lane();
  const bool inside = own % static_cast<unsigned>(width) + delta < static_cast<unsigned>(width);
  return simulator::shuffle_if(inside, mask, value, own + delta);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const unsigned own = simulator::lane();
  const bool inside = own % static_cast<unsigned>(width) >= delta;
  return simulator::shuffle_if(inside, mask, value, own - delta);
}
unsigned __ballot_sync(unsigned mask, int predicate);
unsigned __reduce_max_sync(unsigned mask, unsigned value);
unsigned __reduce_add_sync(unsigned mask, unsigned value);
inline int __any_sync(unsigned mask, int predicate) {
  return __ballot_sync(mask, predicate) != 0 ? 1 : 0;
}
inline int __all_sync(unsigned mask, int predicate) {
  return __ballot_sync(mask, predicate) == mask ? 1 : 0;
}

template <class T>
T atomicMax(T* place, T value) {
  std::atomic_ref<T> atomic(*place);
  T seen = atomic.load();
  while (value > seen && !atomic.compare_exchange_weak(seen, value)) {
  }
  return seen;
}
template <class T>
T atomicAdd(T* place, T value) {
  static_assert(std::is_integral_v<T>, "sums of floating-point numbers have a fixed order");
  return std::atomic_ref<T>(*place).fetch_add(value);
}
template <class T>
T atomicOr(T* place, T value) {
  return std::atomic_ref<T>(*place).fetch_or(value);
}
template <class T>
T atomicExch(T* place, T value) {
  return std::atomic_ref<T>(*place).exchange(value);
}
template <class T>
T atomicCAS(T* place, T expected, T value) {
  std::atomic_ref<T>(*place).compare_exchange_strong(expected, value);
  return expected;
}

template <class T>
T __ldg(const T* place) {
  return *place;
}
template <class T>
T __ldcs(const T* place) {
  return *place;
}
template <class T>
void __stcs(T* place, T value) {
  *place = value;
}
inline int __popc(unsigned value) {
  return std::popcount(value);
}
inline int __ffs(int value) {
  return __builtin_ffs(value);
}
inline int __clz(int value) {
  return std::countl_zero(static_cast<unsigned>(value));
}
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  const uint64_t bytes = static_cast<uint64_t>(b) << 32 | a;
  unsigned result = 0;
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned which = selector >> (4 * i) & 15u;
    unsigned byte = static_cast<unsigned>(bytes >> (8 * (which & 7u))) & 0xFFu;
    if ((which & 8u) != 0) byte = (byte & 0x80u) != 0 ? 0xFFu : 0u;
    result |= byte << (8 * i);
  }
  return result;
}
inline int __dp4a(int a, int b, int c) {
  for (int i = 0; i < 4; ++i) c += static_cast<int8_t>(a >> (8 * i)) * static_cast<int8_t>(b >> (8 * i));
  return c;
}
inline unsigned __float_as_uint(float value) {
  return std::bit_cast<unsigned>(value);
}
inline float __uint_as_float(unsigned bits) {
  return std::bit_cast<float>(bits);
}
inline int __float_as_int(float value) {
  return std::bit_cast<int>(value);
}
inline float __int_as_float(int bits) {
  return std::bit_cast<float>(bits);
}
inline float __fmul_rn(float a, float b) {
  return a * b;
}
inline float __fadd_rn(float a, float b) {
  return a + b;
}
inline float __fdiv_rn(float a, float b) {
  return a / b;
}
inline float __fmaf_rn(float a, float b, float c) {
  return std::fma(a, b, c);
}
inline double __dadd_rn(double a, double b) {
  return a + b;
}
inline float __fsqrt_rn(float a) {
  return std::sqrt(a);
}
[[noreturn]] void __trap();

// ---- Runtime API ----

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInsufficientDriver = 35,
  cudaErrorNoDevice = 100,
  cudaErrorInvalidDevice = 101,
  cudaErrorNoKernelImageForDevice = 209,
  cudaErrorNotReady = 600,
  cudaErrorIllegalAddress = 700,
  cudaErrorSystemNotReady = 802,
  cudaErrorSystemDriverMismatch = 803,
  cudaErrorCompatNotSupportedOnDevice = 804,
  cudaErrorStreamCaptureUnsupported = 900,
  cudaErrorStreamCaptureInvalidated = 901,
  cudaErrorStreamCaptureIsolation = 905,
  cudaErrorStreamCaptureWrongThread = 908,
  cudaErrorGraphExecUpdateFailure = 910
};
enum cudaMemcpyKind {
  cudaMemcpyHostToHost,
  cudaMemcpyHostToDevice,
  cudaMemcpyDeviceToHost,
  cudaMemcpyDeviceToDevice,
  cudaMemcpyDefault
};
enum cudaDeviceAttr { cudaDevAttrMemoryClockRate, cudaDevAttrGlobalMemoryBusWidth, cudaDevAttrClockRate };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
enum cudaStreamCaptureMode {
  cudaStreamCaptureModeGlobal,
  cudaStreamCaptureModeThreadLocal,
  cudaStreamCaptureModeRelaxed
};
enum cudaGraphExecUpdateResult { cudaGraphExecUpdateSuccess, cudaGraphExecUpdateError };
struct cudaGraphExecUpdateResultInfo {
  cudaGraphExecUpdateResult result;
};
constexpr unsigned cudaStreamNonBlocking = 1;
constexpr unsigned cudaHostAllocDefault = 0;
constexpr unsigned cudaEventDisableTiming = 2;
constexpr unsigned cudaEventDefault = 0;

struct cudaUUID_t {
  char bytes[16];
};
struct cudaDeviceProp {
  char name[256];
  cudaUUID_t uuid;
  size_t totalGlobalMem;
  size_t sharedMemPerBlockOptin;
  int major, minor, multiProcessorCount;
};
struct cudaFuncAttributes {
  int binaryVersion;
  size_t sharedSizeBytes, localSizeBytes;
  int numRegs, maxThreadsPerBlock;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  struct CUstream_st* stream;
  void* attrs;
  unsigned numAttrs;
};
using cudaStream_t = struct CUstream_st*;
using cudaEvent_t = struct CUevent_st*;
using cudaGraph_t = struct CUgraph_st*;
using cudaGraphExec_t = struct CUgraphExec_st*;

cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* kernel);
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value);
cudaError_t cudaMalloc(void** memory, size_t bytes);
template <class T>
cudaError_t cudaMalloc(T** memory, size_t bytes) {
  return cudaMalloc(reinterpret_cast<void**>(memory), bytes);
}
cudaError_t cudaFree(void* memory);
cudaError_t cudaHostAlloc(void** memory, size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void* memory);
cudaError_t cudaMemGetInfo(size_t* free, size_t* total);
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamQuery(cudaStream_t stream);
cudaError_t cudaDeviceSynchronize();
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags = 0);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end);
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long flags);
cudaError_t cudaGraphExecUpdate(cudaGraphExec_t executable, cudaGraph_t graph, cudaGraphExecUpdateResultInfo* result);
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable);
cudaError_t cudaGetLastError();
cudaError_t cudaPeekAtLastError();
const char* cudaGetErrorString(cudaError_t error);
const char* cudaGetErrorName(cudaError_t error);
cudaError_t cudaRuntimeGetVersion(int* version);
cudaError_t cudaDriverGetVersion(int* version);

namespace simulator {
// What an operation is, as cudaGraphExecUpdate() compares it: a kernel and the size of its parameters, or a copy and
// its direction, or an operation of a library.
struct OperationKind {
  const void* function = nullptr;
  size_t detail = 0;
  bool operator==(const OperationKind&) const = default;
};
cudaError_t enqueue(cudaStream_t stream, std::function<void()> operation, OperationKind kind = {});
cudaError_t enqueue_launch(cudaStream_t stream, Launch launch);
}  // namespace simulator

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  // The arguments are copied by value, as a launch does. The copies are the host's, so reading them is not checked.
  auto thread =
      [ kernel, ... values = static_cast<Parameters>(arguments) ]() mutable __attribute__((no_sanitize("thread"))) {
    simulator::begin_kernel();
    kernel(values...);
    simulator::end_kernel();
  };
  return simulator::enqueue_launch(config->stream, {.grid = config->gridDim,
                                                    .block = config->blockDim,
                                                    .shared_bytes = config->dynamicSmemBytes,
                                                    .thread = std::move(thread),
                                                    .function = reinterpret_cast<const void*>(kernel),
                                                    .parameter_bytes = (size_t{0} + ... + sizeof(Parameters))});
}
