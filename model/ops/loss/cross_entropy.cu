#include "model/ops/loss/cross_entropy.h"

#include <algorithm>
#include <limits>

#include "dist/device/launch.cuh"
#include "model/ops/row/device_math.cuh"
#include "model/ops/row/row_sum.cuh"
#include "model/ops/row/storage.h"
#include "quant/format/packs.cuh"

namespace nibble::cuda {
namespace {

// A block computes a row. Its first warps read, exponentiate and write; the last two add the exponentials, tile by
// tile, in the order of row_sum(), which gives them 64 chains of additions.
constexpr int workers = 512;
constexpr int block_threads = workers + row_sums;
constexpr int tile = 4096;      // elements
constexpr int kept_tiles = 4;   // the first tiles of a row stay in shared memory; the others are read again
constexpr int spare_tiles = 2;  // the other tiles use these in turn

template <class T>
struct Rows {
  const float* logits;
  const int32_t* targets;
  T* gradient;  // null: no gradient
  float* losses;
  float scale;
  int64_t vocab;
  int64_t kept;  // kept elements, whole tiles
};

template <class T>
int64_t shared_elements(const Rows<T>& rows) {
  return rows.kept + (rows.vocab > rows.kept ? int64_t{spare_tiles} * tile : 0);
}

// Returns the largest number of the row, ignoring NaN. Keeps the first tiles in shared memory.
template <int width, class T>
__device__ float largest_of_row(const Rows<T>& rows, const float* row, float* shared) {
  __shared__ float of_warp[workers / warp_lanes];
  const int thread = static_cast<int>(threadIdx.x);
  if (thread < workers) {
    float largest = -std::numeric_limits<float>::infinity();
#pragma unroll 4
    for (int64_t i = thread * width; i < rows.vocab; i += workers * width) {
      const auto values = load_floats<width>(row + i);
      if (i < rows.kept) store_pack(shared + i, values);
#pragma unroll
      for (int k = 0; k < width; ++k) largest = values.value[k] > largest ? values.value[k] : largest;
    }
#pragma unroll
    for (int distance = warp_lanes / 2; distance > 0; distance /= 2) {
      const float other = __shfl_xor_sync(all_lanes, largest, distance);
      largest = other > largest ? other : largest;
    }
    if (thread % warp_lanes == 0) of_warp[thread / warp_lanes] = largest;
  }
  __syncthreads();
  float largest = of_warp[0];
  for (int warp = 1; warp < workers / warp_lanes; ++warp) largest = of_warp[warp] > largest ? of_warp[warp] : largest;
  return largest;
}

// One thread of 64 adds its elements of a tile, and of the rest of the row that does not fill a group of 64.
__device__ __forceinline__ float add_in_order(const float* values, int count, int chain, float sum) {
  int first = 0;
#pragma unroll 8
  for (; first + row_sums <= count; first += row_sums) sum += values[first + chain];
  constexpr int half = row_sums / 2;
  if (first + half <= count) {
    if (chain < half) sum += values[first + chain];
    first += half;
  }
  if (chain >= half && first + chain - half < count) sum += values[first + chain - half];
  return sum;
}

// Returns the sum of exp(row - shift). The kept tiles are replaced by their exponentials.
template <int width, class T>
__device__ float sum_of_exponentials(const Rows<T>& rows, const float* row, float shift, float* shared) {
  __shared__ float sums[row_sums];
  const int thread = static_cast<int>(threadIdx.x);
  float sum = 0;
  int spare = 0;
  for (int64_t first = 0; first < rows.vocab; first += tile) {
    const bool kept = first < rows.kept;
    float* const exponentials = shared + (kept ? first : rows.kept + spare * tile);
    if (!kept) spare = 1 - spare;
    const int count = static_cast<int>(rows.vocab - first < tile ? rows.vocab - first : tile);
    if (thread < workers) {
#pragma unroll
      for (int i = thread * width; i < tile; i += workers * width) {
        if (i >= count) break;
        auto values = load_pack<width>((kept ? exponentials : row + first) + i);
#pragma unroll
        for (int k = 0; k < width; ++k) values.value[k] = cuda::exp_f32(values.value[k] - shift);
        store_pack(exponentials + i, values);
      }
    }
    __syncthreads();  // also ends the sums of the previous tile, whose memory the next tile may use
    if (thread >= workers) sum = add_in_order(exponentials, count, thread - workers, sum);
  }
  if (thread >= workers) sums[thread - workers] = sum;
  __syncthreads();
  const int lane = thread % 16;
  return total_of_lanes((sums[lane] + sums[lane + 32]) + (sums[lane + 16] + sums[lane + 48]));
}

template <class T, int width>
__global__ void __launch_bounds__(block_threads, 2) cross_entropy_kernel(Rows<T> rows) {
  float* const shared = dynamic_shared<float>();
  const int thread = static_cast<int>(threadIdx.x);
  const float* const row = rows.logits + blockIdx.x * rows.vocab;
  const int32_t target = rows.targets[blockIdx.x];
  if (target < 0 || target >= rows.vocab) __trap();
  const float logit = row[target];
  const float largest = largest_of_row<width>(rows, row, shared);
  const float sum = sum_of_exponentials<width>(rows, row, largest, shared);
  if (thread == 0) rows.losses[blockIdx.x] = log_f32(sum) + (largest - logit);
  if (rows.gradient == nullptr || thread >= workers) return;

  T* const gradient = rows.gradient + blockIdx.x * rows.vocab;
  const float factor = rows.scale / sum;
  const float at_target = rows.scale * (cuda::exp_f32(logit - largest) / sum - 1.0f);
#pragma unroll 4
  for (int64_t i = thread * width; i < rows.vocab; i += workers * width) {
    const bool kept = i < rows.kept;
    auto values = load_pack<width>((kept ? shared : row) + i);
#pragma unroll
    for (int k = 0; k < width; ++k) {
      const float exponential = kept ? values.value[k] : cuda::exp_f32(values.value[k] - largest);
      values.value[k] = i + k == target ? at_target : factor * exponential;
    }
    store_floats(gradient + i, values);
  }
}

template <class T>
void launch_rows(const Rows<T>& rows, int64_t tokens) {
  constexpr int width = 4;
  const bool fits = in_packs(width, sizeof(float), rows.vocab, {rows.logits}) &&
                    in_packs(width, sizeof(T), rows.vocab, {rows.gradient});
  with_pack<width>(fits, [&](auto pack) {
    launch("cross_entropy", cross_entropy_kernel<T, pack()>,
           {dim3(narrow<unsigned>(tokens)), dim3(block_threads),
            static_cast<size_t>(shared_elements(rows)) * sizeof(float)},
           rows);
  });
}

}  // namespace

void cross_entropy(const CrossEntropy& problem) {
  const int64_t tokens = problem.targets.elements();
  const int64_t vocab = problem.logits.cols();
  const bool wanted = !problem.grad_logits.empty();
  with_storage_type(wanted ? problem.grad_logits.dtype() : DType::f32, [&]<class T>(T) {
    launch_rows(Rows<T>{.logits = problem.logits.as<float>(),
                        .targets = problem.targets.as<int32_t>(),
                        .gradient = wanted ? problem.grad_logits.as<T>() : nullptr,
                        .losses = problem.losses.as<float>(),
                        .scale = problem.scale,
                        .vocab = vocab,
                        .kept = std::min<int64_t>(round_up<int64_t>(vocab, tile), int64_t{kept_tiles} * tile)},
                tokens);
  });
}

}  // namespace nibble::cuda
