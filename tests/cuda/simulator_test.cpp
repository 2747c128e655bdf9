// Tests the simulator itself: a kernel with a fault ends the program with a message that names it, and what is allowed
// passes. This file is compiled as the .cu files are.
#include <cuda_runtime.h>

#include <array>
#include <cstdlib>

#include "cuda/device_fixture.h"
#include "dist/device/launch.cuh"
#include "quant/format/packs.cuh"

namespace nibble {
namespace {

// The death tests run in a program of their own, because this one has threads.
class Simulator : public DeviceTest {
 protected:
  void SetUp() override { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

// Memory for one kernel, cudaMalloc'ed to the byte.
class DeviceBytes {
 public:
  explicit DeviceBytes(size_t bytes) {
    cuda::check(cudaMalloc(&memory_, bytes), "cudaMalloc");
    cuda::zero_bytes(memory_, bytes);
  }
  ~DeviceBytes() { cudaFree(memory_); }
  DeviceBytes(const DeviceBytes&) = delete;
  DeviceBytes& operator=(const DeviceBytes&) = delete;
  template <class T>
  T* as(size_t offset = 0) const {
    return reinterpret_cast<T*>(static_cast<std::byte*>(memory_) + offset);
  }
  float first() const {
    float value = 0;
    cuda::copy_bytes({&value, DeviceKind::cpu, memory_, DeviceKind::cuda, sizeof value});
    return value;
  }

 private:
  void* memory_ = nullptr;
};

// Runs a kernel of 96 threads, three warps, with 1 KiB of dynamic shared memory.
template <class... Parameters, class... Arguments>
void run(void (*kernel)(Parameters...), Arguments... arguments) {
  cuda::launch("test", kernel, {dim3(2), dim3(96), 1024}, arguments...);
  cuda::synchronize();
}

// ---- Addresses ----

constexpr int table[8] = {3, 1, 4, 1, 5, 9, 2, 6};

struct Places {
  const float* from;
  float* to;
};
__global__ void copy_kernel(Places problem) {
  if (threadIdx.x == 40) *problem.to = *problem.from + 1;
}

TEST_F(Simulator, MemoryOfTheDeviceIsNotTheHosts) {
  TwinTensor values(DType::f32, {4});
  EXPECT_DEATH(
      {
        volatile float* place = values.gpu().as<float>();
        *place = 1;
      },
      "");
}

TEST_F(Simulator, MemoryOfTheHostIsNotTheDevices) {
  const DeviceBytes device(4);
  auto host = std::make_unique<float>(1.0f);
  EXPECT_DEATH(run(copy_kernel, Places{host.get(), device.as<float>()}),
               "copy_kernel.*thread \\(40, 0, 0\\) of block \\([01], 0, 0\\) reads 4 bytes of the host's memory");
  EXPECT_DEATH(run(copy_kernel, Places{device.as<float>(), host.get()}), "writes 4 bytes of the host's memory");
  const auto* of_the_program = reinterpret_cast<const float*>(table);
  EXPECT_DEATH(run(copy_kernel, Places{device.as<float>(), const_cast<float*>(of_the_program)}),
               "writes 4 bytes of a constant");
  run(copy_kernel, Places{of_the_program, device.as<float>()});
}

TEST_F(Simulator, AllocationsEndAtTheirLastByte) {
  const DeviceBytes device(100);
  run(copy_kernel, Places{device.as<float>(), device.as<float>(96)});
  EXPECT_DEATH(run(copy_kernel, Places{device.as<float>(), device.as<float>(100)}),
               "writes 4 bytes at offset 100 of an allocation of 100 bytes");
  const DeviceBytes odd(102);
  EXPECT_DEATH(run(copy_kernel, Places{odd.as<float>(100), odd.as<float>()}), "reads 4 bytes at offset 100");
  auto* freed = new DeviceBytes(4);
  const Places problem{freed->as<float>(), device.as<float>()};
  delete freed;
  EXPECT_DEATH(run(copy_kernel, problem), "or of no memory at all");
}

TEST_F(Simulator, KernelsTouchPinnedMemory) {
  const DeviceBytes device(4);
  void* pinned = cuda::allocate_pinned(sizeof(float));
  *static_cast<float*>(pinned) = 5;
  run(copy_kernel, Places{static_cast<float*>(pinned), device.as<float>()});
  EXPECT_EQ(device.first(), 6);
  EXPECT_DEATH(run(copy_kernel, Places{static_cast<float*>(pinned) + 1, device.as<float>()}), "offset 4");
  cuda::release_pinned(pinned);
}

__global__ void own_memory_kernel(float* to) {
  std::array<int, 8> own;
  for (unsigned i = 0; i < own.size(); ++i) own[(i + threadIdx.x) % own.size()] = table[(i * threadIdx.x) % own.size()];
  to[blockIdx.x * blockDim.x + threadIdx.x] = static_cast<float>(own[threadIdx.x % own.size()]);
}

__global__ void foreign_stack_kernel(float* to) {
  auto** const address = cuda::dynamic_shared<float*>();
  float own = 1;
  if (threadIdx.x == 0) *address = &own;
  __syncthreads();
  if (threadIdx.x == 1) **address = 2;
  __syncthreads();
  if (threadIdx.x == 0) *to = own;
}

TEST_F(Simulator, AThreadTouchesItsOwnStackOnly) {
  const DeviceBytes device(192 * sizeof(float));
  run(own_memory_kernel, device.as<float>());
  EXPECT_DEATH(run(foreign_stack_kernel, device.as<float>()), "thread \\(1, 0, 0\\).*another thread's stack");
}

__global__ void shared_overrun_kernel(size_t index) {
  cuda::dynamic_shared<float>()[index] = 1;
}

TEST_F(Simulator, DynamicSharedMemoryEndsAtItsLastByte) {
  EXPECT_DEATH(run(shared_overrun_kernel, size_t{256}), "shared_overrun_kernel");
}

// ---- Alignment ----

template <class T>
__global__ void vector_kernel(const void* from, float* to) {
  const T vector = *static_cast<const T*>(from);
  if (threadIdx.x == 0) *to = static_cast<float>(vector.x);
}
__global__ void pack_kernel(const float* from, float* to) {
  if (threadIdx.x == 0) *to = cuda::load_pack<4>(from).value[3];
}
__global__ void bytes_kernel(const std::byte* from, float* to) {
  if (threadIdx.x == 0) std::memcpy(to, from, sizeof(float));
}

TEST_F(Simulator, AddressesAreAlignedToTheirTypes) {
  const DeviceBytes device(64);
  auto* const to = device.as<float>();
  run(vector_kernel<uint4>, device.as<const void>(16), to);
  run(vector_kernel<float2>, device.as<const void>(8), to);
  run(bytes_kernel, device.as<std::byte>(17), to);
  EXPECT_DEATH(run(vector_kernel<uint4>, device.as<const void>(8), to), "uint4.*aligned to 16 bytes .*simulator_test");
  EXPECT_DEATH(run(vector_kernel<float2>, device.as<const void>(4), to), "float2.*aligned to 8 bytes");
  EXPECT_DEATH(run(pack_kernel, device.as<const float>(4), to), "Pack.*aligned to 16 bytes");
  EXPECT_DEATH(run(copy_kernel, Places{device.as<float>(2), to}), "float.*aligned to 4 bytes");
}

// ---- Races on shared memory ----

enum class Between { nothing, warp_barrier, shuffle, block_barrier };
enum class Second { reads, writes };

template <Between between>
__device__ void meet() {
  if constexpr (between == Between::warp_barrier) __syncwarp();
  if constexpr (between == Between::shuffle) __shfl_sync(cuda::all_lanes, 0, 0);
  if constexpr (between == Between::block_barrier) __syncthreads();
}

// Each thread writes its word, or reads it, and then touches that of the thread `distance` after it.
template <bool first_writes, Between between, Second second>
__device__ void exchange_words(float* words, unsigned distance, float* to) {
  float value = static_cast<float>(threadIdx.x);
  if (first_writes) {
    words[threadIdx.x] = value;
  } else {
    value = words[threadIdx.x];
  }
  meet<between>();
  float& other = words[(threadIdx.x + distance) % blockDim.x];
  if (second == Second::reads) {
    value += other;
  } else {
    other = value;
  }
  to[blockIdx.x * blockDim.x + threadIdx.x] = value;
}
template <bool first_writes, Between between, Second second>
__global__ void dynamic_kernel(unsigned distance, float* to) {
  exchange_words<first_writes, between, second>(cuda::dynamic_shared<float>(), distance, to);
}
template <bool first_writes, Between between, Second second>
__global__ void static_kernel(unsigned distance, float* to) {
  __shared__ float words[96];
  exchange_words<first_writes, between, second>(words, distance, to);
}
__global__ void static_scalar_kernel(float* to) {
  __shared__ float word;
  if (threadIdx.x == 0) word = 1;
  to[blockIdx.x * blockDim.x + threadIdx.x] = word;
}

TEST_F(Simulator, WarpsRaceWithoutABarrier) {
  const DeviceBytes memory(192 * sizeof(float));
  auto* const to = memory.as<float>();
  constexpr auto none = Between::nothing;
  EXPECT_DEATH(run(dynamic_kernel<true, none, Second::reads>, 32u, to), "dynamic shared memory.*without a barrier");
  EXPECT_DEATH(run(dynamic_kernel<true, none, Second::writes>, 32u, to), "writes byte .*has (read|written)");
  EXPECT_DEATH(run(dynamic_kernel<false, none, Second::writes>, 32u, to), "without a barrier");
  EXPECT_DEATH(run(static_kernel<true, none, Second::reads>, 32u, to), "static shared memory.*without a barrier");
  EXPECT_DEATH(run(static_scalar_kernel, to), "static_scalar_kernel.*static shared memory");
  // A barrier of the warp orders nothing between warps.
  EXPECT_DEATH(run(dynamic_kernel<true, Between::warp_barrier, Second::reads>, 32u, to), "without a barrier");
  run(dynamic_kernel<true, Between::block_barrier, Second::reads>, 32u, to);
  run(dynamic_kernel<true, Between::block_barrier, Second::writes>, 32u, to);
  run(static_kernel<true, Between::block_barrier, Second::reads>, 32u, to);
  run(dynamic_kernel<false, none, Second::reads>, 32u, to);
}

TEST_F(Simulator, LanesOfAWarpRaceWithoutABarrier) {
  const DeviceBytes memory(192 * sizeof(float));
  auto* const to = memory.as<float>();
  cuda::launch("test", dynamic_kernel<true, Between::warp_barrier, Second::reads>, {dim3(1), dim3(32), 1024}, 1u, to);
  cuda::launch("test", dynamic_kernel<false, Between::warp_barrier, Second::writes>, {dim3(1), dim3(32), 1024}, 1u, to);
  cuda::synchronize();
  // A shuffle does not order memory.
  EXPECT_DEATH(run(dynamic_kernel<true, Between::shuffle, Second::reads>, 1u, to), "without a barrier");
  EXPECT_DEATH(run(dynamic_kernel<false, Between::shuffle, Second::writes>, 1u, to), "without a barrier");
}

// Three warps write the bytes of each word; all add to one number; all read what one has written.
__global__ void innocent_kernel(float* to) {
  __shared__ unsigned sum;
  auto* const bytes = cuda::dynamic_shared<uint8_t>();
  const unsigned lane = threadIdx.x % 32;
  const unsigned warp = threadIdx.x / 32;
  if (threadIdx.x == 0) sum = 0;
  for (int turn = 0; turn < 3; ++turn) {
    bytes[4 * lane + warp] = static_cast<uint8_t>(warp);
    __syncthreads();
    atomicAdd(&sum, static_cast<unsigned>(bytes[(4 * lane + warp + 4) % 128]));
    __syncthreads();
  }
  if (threadIdx.x == 95) *to = static_cast<float>(sum);
}

TEST_F(Simulator, WhatIsOrderedPasses) {
  const DeviceBytes memory(4);
  run(innocent_kernel, memory.as<float>());
  EXPECT_EQ(memory.first(), 3 * 32 * (0 + 1 + 2));
}

// ---- Copies, capture, faults ----

TEST_F(Simulator, CopiesKeepOrder) {
  TwinTensor values(DType::f32, {1000});
  values.fill_normal(3);
  EXPECT_TRUE(same_bits(values));
  zero_bytes(values.gpu().data(), DeviceKind::cuda, values.gpu().bytes());
  EXPECT_FALSE(same_bits(values));
}

TEST_F(Simulator, CopiesLieInsideAllocations) {
  const DeviceBytes device(100);
  std::array<std::byte, 200> host{};
  const auto copy = [&](void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
    return cudaMemcpyAsync(to, from, bytes, kind, cuda::compute_stream());
  };
  EXPECT_EQ(copy(device.as<void>(), host.data(), 100, cudaMemcpyHostToDevice), cudaSuccess);
  EXPECT_EQ(copy(device.as<void>(), host.data(), 101, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  EXPECT_EQ(copy(device.as<void>(), host.data(), 4, cudaMemcpyDeviceToHost), cudaErrorInvalidValue);
  EXPECT_EQ(copy(host.data(), device.as<void>(), 4, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  EXPECT_EQ(copy(host.data(), host.data() + 8, 4, cudaMemcpyDeviceToDevice), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemsetAsync(device.as<void>(50), 0, 51, cuda::compute_stream()), cudaErrorInvalidValue);
  cuda::synchronize();
}

// Captures what `captured` asks for, and returns whether that gave a graph.
template <class Function>
bool gives_graph(const Function& captured) {
  cuda::check(cudaStreamBeginCapture(cuda::compute_stream(), cudaStreamCaptureModeThreadLocal), "begin");
  captured();
  cudaGraph_t graph = nullptr;
  const cudaError_t status = cudaStreamEndCapture(cuda::compute_stream(), &graph);
  cudaGetLastError();
  EXPECT_TRUE(status == cudaSuccess || status == cudaErrorStreamCaptureInvalidated);
  if (status == cudaSuccess) cudaGraphDestroy(graph);
  return status == cudaSuccess;
}

TEST_F(Simulator, CaptureRefusesWhatIsNotCaptured) {
  const DeviceBytes device(64);
  void* memory = nullptr;
  void* const pinned = cuda::allocate_pinned(64);
  cudaEvent_t event = nullptr;
  cudaEventCreateWithFlags(&event, cudaEventDefault);
  cudaEventRecord(event, cuda::communication_stream());
  const cudaStream_t stream = cuda::compute_stream();
  const auto copy = [&](void* host) {
    return cudaMemcpyAsync(host, device.as<void>(), 64, cudaMemcpyDeviceToHost, stream);
  };

  EXPECT_TRUE(gives_graph([&] { EXPECT_EQ(copy(pinned), cudaSuccess); }));
  EXPECT_TRUE(gives_graph([&] { cuda::zero_bytes(device.as<void>(), 64); }));
  float pageable[16];
  EXPECT_FALSE(gives_graph([&] { EXPECT_NE(copy(pageable), cudaSuccess); }));
  EXPECT_FALSE(gives_graph([&] { EXPECT_NE(cudaMalloc(&memory, 64), cudaSuccess); }));
  EXPECT_FALSE(gives_graph([&] { EXPECT_NE(cudaFree(device.as<void>()), cudaSuccess); }));
  EXPECT_FALSE(gives_graph([&] { EXPECT_NE(cudaHostAlloc(&memory, 64, cudaHostAllocDefault), cudaSuccess); }));
  EXPECT_FALSE(gives_graph([&] { EXPECT_NE(cudaFreeHost(pinned), cudaSuccess); }));
  EXPECT_FALSE(gives_graph([&] { EXPECT_NE(cudaEventSynchronize(event), cudaSuccess); }));
  EXPECT_FALSE(gives_graph([&] { EXPECT_NE(cudaEventQuery(event), cudaSuccess); }));
  EXPECT_FALSE(gives_graph([&] { EXPECT_NE(cudaStreamWaitEvent(stream, event), cudaSuccess); }));
  EXPECT_FALSE(gives_graph([&] { EXPECT_NE(cudaStreamSynchronize(stream), cudaSuccess); }));
  EXPECT_FALSE(gives_graph([&] { EXPECT_NE(cudaDeviceSynchronize(), cudaSuccess); }));
  cudaEventDestroy(event);
  cuda::release_pinned(pinned);
}

TEST_F(Simulator, GraphsAreUpdatedWithTheSameOperations) {
  const DeviceBytes device(192 * sizeof(float));
  auto* const to = device.as<float>();
  const auto captured = [](auto operation) {
    cuda::check(cudaStreamBeginCapture(cuda::compute_stream(), cudaStreamCaptureModeThreadLocal), "begin");
    operation();
    cudaGraph_t graph = nullptr;
    cuda::check(cudaStreamEndCapture(cuda::compute_stream(), &graph), "end");
    return graph;
  };
  const auto launch = [&](auto kernel, auto... arguments) {
    return captured([=] { cuda::launch("test", kernel, {dim3(1), dim3(32)}, arguments...); });
  };
  const cudaGraph_t first = launch(copy_kernel, Places{to, to});
  const cudaGraph_t same = launch(copy_kernel, Places{to, to + 1});
  const cudaGraph_t other = launch(own_memory_kernel, to);
  const cudaGraph_t clear = captured([&] { cuda::zero_bytes(to, 4); });
  cudaGraphExec_t executable = nullptr;
  cuda::check(cudaGraphInstantiate(&executable, first, 0), "cudaGraphInstantiate");
  cudaGraphExecUpdateResultInfo info{};
  EXPECT_EQ(cudaGraphExecUpdate(executable, same, &info), cudaSuccess);
  EXPECT_NE(cudaGraphExecUpdate(executable, other, &info), cudaSuccess);
  EXPECT_NE(cudaGraphExecUpdate(executable, clear, &info), cudaSuccess);
  cudaGraphExecDestroy(executable);
  for (const cudaGraph_t graph : {first, same, other, clear}) cudaGraphDestroy(graph);
  cudaGetLastError();
}

// The exit code is the number of the first expectation that is not met.
[[noreturn]] void fault_in_second_kernel() {
  setenv("NIBBLE_SIMULATED_CUDA_FAULT", "launch 2", 1);
  const DeviceBytes device(4);
  const Places problem{device.as<float>(), device.as<float>()};
  run(copy_kernel, problem);
  cuda::launch("test", copy_kernel, {dim3(1), dim3(96)}, problem);
  void* memory = nullptr;
  constexpr cudaError_t fault = cudaErrorIllegalAddress;
  if (cudaStreamSynchronize(cuda::compute_stream()) != fault) std::_Exit(1);
  if (cudaGetLastError() != fault || cudaGetLastError() != fault) std::_Exit(2);
  if (cudaMalloc(&memory, 4) != fault) std::_Exit(3);
  if (cudaMemsetAsync(device.as<void>(), 0, 4, cuda::compute_stream()) != fault) std::_Exit(4);
  if (cudaDeviceSynchronize() != fault) std::_Exit(5);
  std::_Exit(0);
}

TEST_F(Simulator, NothingWorksAfterAFault) {
  EXPECT_EXIT(fault_in_second_kernel(), testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace nibble
