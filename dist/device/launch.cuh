// launch() starts kernels on this process's compute stream and checks every status.
//
// Kernels compile for the GPU and, in the tests, as plain C++ for a simulator of CUDA's thread model on the CPU. They
// therefore use launch() instead of <<< >>> and dynamic_shared() instead of extern __shared__, and inline assembly only
// in the headers that hide it.
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

// Throws ExitCode::out_of_memory or ExitCode::internal with the name of the operation if `status` is an error.
// `operation` is a string literal.
void check(cudaError_t status, const char* operation);

// The stream of every kernel and copy of the model, in order.
cudaStream_t compute_stream();
// The stream that runs beside the compute stream: exchange of gradients and weights, and copies between host and device
// that overlap with computing.
cudaStream_t communication_stream();

struct LaunchShape {
  dim3 grid;
  dim3 block;
  size_t shared_bytes = 0;  // dynamic shared memory of a block
};

// Starts a kernel, which takes its problem as one struct of plain data. An empty grid starts nothing.
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

// Returns blocks of `threads` that cover `count` items with one thread an item. Fails (NIBBLE_CHECK) if a grid cannot
// have so many.
inline LaunchShape one_thread_each(int64_t count, int threads = 256) {
  const int64_t blocks = div_ceil<int64_t>(count, threads);
  return {dim3(narrow<unsigned>(blocks)), dim3(static_cast<unsigned>(threads))};
}

// Returns the index of this thread in its one-dimensional grid.
__device__ __forceinline__ int64_t global_thread() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

}  // namespace nibble::cuda
