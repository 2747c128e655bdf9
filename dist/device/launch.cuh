// How .cu files start kernels: on this process's compute stream, with every status checked.
//
// Kernels compile for the GPU, and, in the tests, as plain C++ for a simulator of CUDA's thread model on the CPU. So
// they use launch() instead of <<< >>>, dynamic_shared() instead of extern __shared__, and no inline assembly outside
// the headers that hide it.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#include "dist/base/error.h"
#include "dist/device/dynamic_shared.cuh"

namespace nibble::cuda {

constexpr int warp_lanes = 32;
constexpr unsigned all_lanes = 0xFFFFFFFFu;

// Throws ExitCode::out_of_memory or ExitCode::internal, naming the operation. `operation`: a string literal.
void check(cudaError_t status, const char* operation);

// Every kernel and copy of the model goes here, in order.
cudaStream_t compute_stream();
// Beside it: exchange of gradients and weights, and copies between host and device, that overlap with computing.
cudaStream_t communication_stream();

struct LaunchShape {
  dim3 grid;
  dim3 block;
  size_t shared_bytes = 0;  // dynamic
};

// Kernels take their problem as one struct of plain data. An empty grid starts nothing.
template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), const LaunchShape& shape, Arguments&&... arguments) {
  if (shape.grid.x == 0 || shape.grid.y == 0 || shape.grid.z == 0) return;
  constexpr size_t without_opt_in = 48 * 1024;
  if (shape.shared_bytes > without_opt_in) {
    check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shape.shared_bytes)),
          name);
  }
  cudaLaunchConfig_t config{};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = compute_stream();
  check(cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...), name);
}

// Blocks of `threads` that cover `count` items with one thread an item. Refuses more than a grid can have.
inline LaunchShape one_thread_each(int64_t count, int threads = 256) {
  const int64_t blocks = div_ceil<int64_t>(count, threads);
  return {dim3(narrow<unsigned>(blocks)), dim3(static_cast<unsigned>(threads))};
}

// This thread's number among all of a one-dimensional grid.
__device__ __forceinline__ int64_t global_thread() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

}  // namespace nibble::cuda
