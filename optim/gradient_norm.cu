#include "optim/gradient_norm.h"

#include <algorithm>

#include "dist/device/cuda_device.h"
#include "dist/device/launch.cuh"

namespace nibble::cuda {
namespace {

constexpr int lanes = 16;
constexpr int lanes_a_thread = 4;
constexpr int threads_a_block = lanes / lanes_a_thread;  // threads for one block
constexpr int threads = 128;

struct Squares {
  const float* values;  // aligned to 16 bytes
  const Range* ranges;  // memory of the CPU, as the sums
  double* sums;
  int64_t blocks;
};

__device__ __forceinline__ void add_square(double& lane, float value) {
  // The square is exact in double, so that the one rounding of the fma equals the CPU's two operations.
  lane = fma(static_cast<double>(value), static_cast<double>(value), lane);
}

// Four neighbouring threads add the squares of one block, four lanes each.
__global__ void square_sums_kernel(Squares squares) {
  const int64_t thread = global_thread();
  const int64_t block = thread / threads_a_block;
  const int quarter = static_cast<int>(thread % threads_a_block);
  double lane[lanes_a_thread] = {};
  if (block < squares.blocks) {
    const Range range = squares.ranges[block];
    const int count = static_cast<int>(range.end - range.begin);
    const float* const values = squares.values + range.begin + quarter * lanes_a_thread;
    const int rows = count / lanes;
#pragma unroll 8
    for (int row = 0; row < rows; ++row) {
      const float4 value = reinterpret_cast<const float4*>(values)[row * threads_a_block];
      add_square(lane[0], value.x);
      add_square(lane[1], value.y);
      add_square(lane[2], value.z);
      add_square(lane[3], value.w);
    }
#pragma unroll
    for (int j = 0; j < lanes_a_thread; ++j) {
      if (rows * lanes + quarter * lanes_a_thread + j < count) add_square(lane[j], values[rows * lanes + j]);
    }
  }
  // The tree adds lanes j and j + 8, then j and j + 4, across threads, and then j + 2 and j + 1 inside the first
  // thread.
#pragma unroll
  for (int step = threads_a_block / 2; step > 0; step /= 2) {
#pragma unroll
    for (int j = 0; j < lanes_a_thread; ++j) {
      lane[j] += __shfl_down_sync(all_lanes, lane[j], static_cast<unsigned>(step), threads_a_block);
    }
  }
  if (quarter != 0 || block >= squares.blocks) return;
  lane[0] += lane[2];
  lane[1] += lane[3];
  squares.sums[block] = lane[0] + lane[1];
}

// Returns memory of the CPU that kernels read and write. It is allocated again only when more blocks come.
std::byte* memory_of_blocks(size_t count) {
  static std::byte* memory = nullptr;
  static size_t capacity = 0;
  if (count > capacity) {
    if (memory != nullptr) release_pinned(memory);
    memory = nullptr;
    memory = static_cast<std::byte*>(allocate_pinned(count * (sizeof(Range) + sizeof(double))));
    capacity = count;
  }
  return memory;
}

}  // namespace

void sum_squares(const SquareSums& problem) {
  if (problem.sums.empty()) return;
  const size_t blocks = problem.sums.size();
  std::byte* const memory = memory_of_blocks(blocks);
  auto* const ranges = reinterpret_cast<Range*>(memory);
  auto* const sums = reinterpret_cast<double*>(memory + blocks * sizeof(Range));
  std::ranges::copy(problem.blocks, ranges);
  const Squares squares{problem.shard.as<float>(), ranges, sums, static_cast<int64_t>(blocks)};
  NIBBLE_CHECK(reinterpret_cast<uintptr_t>(squares.values) % alignof(float4) == 0,
               "a gradient begins at a multiple of 16 bytes");
  launch("gradient norm", square_sums_kernel, one_thread_each(squares.blocks * threads_a_block, threads), squares);
  check(cudaStreamSynchronize(compute_stream()), "gradient norm");
  std::copy_n(sums, blocks, problem.sums.begin());
}

}  // namespace nibble::cuda
