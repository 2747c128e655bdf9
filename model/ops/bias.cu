#include "model/ops/bias.h"

#include "dist/device/launch.cuh"
#include "model/ops/row/storage.h"
#include "quant/format/packs.cuh"

namespace nibble::cuda {
namespace {

template <class T>
struct Addition {
  T* matrix;  // [tokens, features]
  const T* bias;
  int64_t tokens, features;
};

// A thread adds a pack of the bias to one row.
template <class T, int width>
__global__ void add_bias_kernel(Addition<T> problem) {
  const int64_t packs = problem.features / width;
  const int64_t index = global_thread();
  if (index >= problem.tokens * packs) return;
  const int64_t column = index % packs * width;
  auto values = load_floats<width>(problem.matrix + index * width);
  const auto bias = load_floats<width>(problem.bias + column);
#pragma unroll
  for (int i = 0; i < width; ++i) values.value[i] = values.value[i] + bias.value[i];
  store_floats(problem.matrix + index * width, values);
}

template <class T>
struct Backward {
  const T* grad_output;
  float* partial_sums;  // [ranges, features]
  int64_t tokens, features;
  int64_t range;  // tokens of a range
};

// A thread sums a pair of columns over a range of tokens, in order.
template <class T, int width>
__global__ void bias_sums_kernel(Backward<T> problem) {
  const int64_t column = global_thread() * width;
  if (column >= problem.features) return;
  const int64_t begin = blockIdx.y * problem.range;
  const int64_t end = begin + problem.range < problem.tokens ? begin + problem.range : problem.tokens;
  Pack<float, width> sum{};
#pragma unroll 8
  for (int64_t token = begin; token < end; ++token) {
    const auto gradient = load_floats<width>(problem.grad_output + token * problem.features + column);
#pragma unroll
    for (int i = 0; i < width; ++i) sum.value[i] += gradient.value[i];
  }
  store_pack(problem.partial_sums + blockIdx.y * problem.features + column, sum);
}

}  // namespace

void add_bias(const Tensor& matrix, const Tensor& bias) {
  with_storage_type(matrix.dtype(), [&]<class T>(T) {
    const Addition<T> addition{matrix.as<T>(), bias.as<T>(), matrix.rows(), matrix.cols()};
    const bool fits = in_packs(widest_pack<T>, sizeof(T), addition.features, {addition.matrix, addition.bias});
    with_pack<widest_pack<T>>(fits, [&](auto pack) {
      launch("add_bias", add_bias_kernel<T, pack()>, one_thread_each(addition.tokens * addition.features / pack()),
             addition);
    });
  });
}

void bias_backward(const BiasBackward& problem) {
  const int64_t tokens = problem.grad_output.rows();
  if (tokens == 0) return;
  const TokenRanges ranges = TokenRanges::of(tokens);
  with_storage_type(problem.grad_output.dtype(), [&]<class T>(T) {
    const Backward<T> backward{.grad_output = problem.grad_output.as<T>(),
                               .partial_sums = problem.workspace.as<float>(),
                               .tokens = tokens,
                               .features = problem.grad_output.cols(),
                               .range = ranges.length};
    const bool fits = in_packs(2, sizeof(T), backward.features, {backward.grad_output}) &&
                      in_packs(2, sizeof(float), backward.features, {backward.partial_sums});
    with_pack<2>(fits, [&](auto pack) {
      constexpr int threads = 128;
      LaunchShape shape = one_thread_each(div_ceil<int64_t>(backward.features, pack()), threads);
      shape.grid.y = narrow<unsigned>(ranges.count);
      launch("bias_sums", bias_sums_kernel<T, pack()>, shape, backward);
    });
  });
  cuda::add_range_sums({.sums = problem.workspace.slice(0, ranges.count), .gradient = problem.grad_bias});
}

}  // namespace nibble::cuda
