#include "model/ops/embedding.h"

#include <algorithm>

#include "dist/device/launch.cuh"
#include "model/ops/row/storage.h"
#include "quant/format/packs.cuh"

namespace nibble::cuda {
namespace {

struct Lookup {
  const int32_t* tokens;
  const void* weight;  // [vocab, units]
  void* output;        // [n, units]
  int64_t vocab, units;
};

// Copies rows in units of one memory access. blockIdx.x is the position.
template <class Unit>
__global__ void forward_kernel(Lookup lookup) {
  const int64_t unit = static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x;
  if (unit >= lookup.units) return;
  const int64_t token = lookup.tokens[blockIdx.x];
  if (token < 0 || token >= lookup.vocab) __trap();
  static_cast<Unit*>(lookup.output)[blockIdx.x * lookup.units + unit] =
      static_cast<const Unit*>(lookup.weight)[token * lookup.units + unit];
}

LaunchShape positions_by_units(int64_t positions, int64_t units, int64_t most_threads) {
  const int64_t threads = std::min(most_threads, round_up<int64_t>(units, warp_lanes));
  return {dim3(narrow<unsigned>(positions), narrow<unsigned>(div_ceil(units, threads))),
          dim3(narrow<unsigned>(threads))};
}

constexpr int backward_threads = 256;
constexpr int backward_warps = backward_threads / warp_lanes;
constexpr int rounds = 4;  // positions that a thread examines between two barriers
constexpr int window = backward_threads * rounds;

template <class T>
struct Scatter {
  const int32_t* tokens;
  const T* grad_output;
  float* grad_weight;
  int64_t count, vocab, features;
  bool continues;
};

// Returns true if one of tokens [0, end) is `token`. The nearest positions are examined first.
__device__ __forceinline__ bool occurs_before(const int32_t* tokens, int64_t end, int32_t token) {
  for (int64_t last = end; last > 0; last -= window) {
    bool found = false;
#pragma unroll
    for (int round = 0; round < rounds; ++round) {
      const int64_t position = last - 1 - round * backward_threads - threadIdx.x;
      found = found || (position >= 0 && tokens[position] == token);
    }
    if (__syncthreads_or(found ? 1 : 0) != 0) return true;
  }
  return false;
}

// A block's list of the positions in [first, first + window) that hold `token`, in ascending order.
struct Occurrences {
  int32_t offset[window];  // from `first`
  int32_t of_warp[rounds * backward_warps];
};
// Fills the list and returns how many positions it holds; all threads of the block call it.
__device__ __forceinline__ int find_occurrences(const int32_t* tokens, int64_t first, int64_t count, int32_t token,
                                                Occurrences& list) {
  const int thread = static_cast<int>(threadIdx.x);
  const int warp = thread / warp_lanes;
  unsigned matches[rounds];
  unsigned any = 0;
#pragma unroll
  for (int round = 0; round < rounds; ++round) {
    const int64_t position = first + round * backward_threads + thread;
    matches[round] = __ballot_sync(all_lanes, position < count && tokens[position] == token ? 1 : 0);
    any |= matches[round];
  }
  if (__syncthreads_or(static_cast<int>(any != 0)) == 0) return 0;
  if (thread % warp_lanes == 0) {
#pragma unroll
    for (int round = 0; round < rounds; ++round) list.of_warp[round * backward_warps + warp] = __popc(matches[round]);
  }
  __syncthreads();
  int total = 0;
#pragma unroll
  for (int round = 0; round < rounds; ++round) {
    const unsigned lane = 1u << (thread % warp_lanes);
    for (int other = 0; other < backward_warps; ++other) {
      if (other == warp && (matches[round] & lane) != 0) {
        list.offset[total + __popc(matches[round] & (lane - 1))] = round * backward_threads + thread;
      }
      total += list.of_warp[round * backward_warps + other];
    }
  }
  __syncthreads();
  return total;
}

// A block handles one position and a slice of the columns. The block at a token's first occurrence sums the gradients
// of all occurrences, in order, and adds the sum to the row; the other blocks do nothing.
template <class T, int width>
__global__ void __launch_bounds__(backward_threads) backward_kernel(Scatter<T> problem) {
  __shared__ Occurrences list;
  const int64_t position = blockIdx.x;
  const int32_t token = problem.tokens[position];
  if (token < 0 || token >= problem.vocab) __trap();
  if (occurs_before(problem.tokens, position, token)) return;
  const int64_t column = (static_cast<int64_t>(blockIdx.y) * backward_threads + threadIdx.x) * width;
  const bool mine = column < problem.features;
  float* const grad_weight = problem.grad_weight + token * problem.features + column;
  const T* const gradients = problem.grad_output + column;
  Pack<float, width> sum{};
  if (mine && problem.continues) sum = load_floats<width>(grad_weight);
  for (int64_t first = position; first < problem.count; first += window) {
    const int found = find_occurrences(problem.tokens, first, problem.count, token, list);
    if (found == 0) continue;
    if (mine) {
#pragma unroll 8
      for (int i = 0; i < found; ++i) {
        const auto row = load_floats<width>(gradients + (first + list.offset[i]) * problem.features);
#pragma unroll
        for (int k = 0; k < width; ++k) sum.value[k] += row.value[k];
      }
    }
    __syncthreads();  // the list is written anew after this
  }
  if (!mine) return;
  if (!problem.continues) {
    const auto row = load_floats<width>(grad_weight);
#pragma unroll
    for (int k = 0; k < width; ++k) sum.value[k] = row.value[k] + sum.value[k];
  }
  store_floats(grad_weight, sum);
}

}  // namespace

void embedding_forward(const EmbeddingForward& problem) {
  const int64_t count = problem.tokens.elements();
  with_storage_type(problem.weight.dtype(), [&]<class T>(T) {
    const int64_t features = problem.weight.cols();
    constexpr int pack = widest_pack<T>;
    const bool fits = in_packs(pack, sizeof(T), features, {problem.weight.data(), problem.output.data()});
    const Lookup lookup{problem.tokens.as<int32_t>(), problem.weight.data(), problem.output.data(),
                        problem.weight.size(0), fits ? features / pack : features};
    launch("embedding_forward", fits ? forward_kernel<uint4> : forward_kernel<T>,
           positions_by_units(count, lookup.units, 256), lookup);
  });
}

void embedding_backward(const EmbeddingBackward& problem) {
  const int64_t count = problem.tokens.elements();
  with_storage_type(problem.grad_output.dtype(), [&]<class T>(T) {
    const Scatter<T> scatter{.tokens = problem.tokens.as<int32_t>(),
                             .grad_output = problem.grad_output.as<T>(),
                             .grad_weight = problem.grad_weight.as<float>(),
                             .count = count,
                             .vocab = problem.grad_weight.size(0),
                             .features = problem.grad_weight.cols(),
                             .continues = problem.continues};
    const bool fits = in_packs(4, sizeof(T), scatter.features, {scatter.grad_output}) &&
                      in_packs(4, sizeof(float), scatter.features, {scatter.grad_weight});
    with_pack<4>(fits, [&](auto pack) {
      const int64_t slices = div_ceil<int64_t>(scatter.features, int64_t{backward_threads} * pack());
      launch("embedding_backward", backward_kernel<T, pack()>,
             {dim3(narrow<unsigned>(count), narrow<unsigned>(slices)), dim3(backward_threads)}, scatter);
    });
  });
}

}  // namespace nibble::cuda
