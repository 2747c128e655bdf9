#include "model/ops/norm/rms_norm.h"

#include <cmath>

#include "dist/device/launch.cuh"
#include "model/ops/norm/rms_norm_rows.cuh"
#include "model/ops/row/storage.h"

namespace nibble::cuda {
namespace {

template <class T>
struct Forward {
  const T* input;
  const T* weight;
  float epsilon;
  T* output;
  float* inverse_rms;
  int64_t tokens, features;
};

// A warp computes a token. It reads the row twice; the second time the row is in the caches.
template <class T, int width>
__global__ void __launch_bounds__(rows_of_block* warp_lanes) forward_kernel(Forward<T> problem) {
  const int64_t token = static_cast<int64_t>(blockIdx.x) * rows_of_block + threadIdx.x / warp_lanes;
  if (token >= problem.tokens) return;
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  const T* const input = problem.input + token * problem.features;
  T* const output = problem.output + token * problem.features;
  const float sum = warp_row_sum(problem.features, Squares<T, (width > 1)>{input});
  const float inverse = 1.0f / std::sqrt(sum / static_cast<float>(problem.features) + problem.epsilon);
  if (lane == 0) problem.inverse_rms[token] = inverse;
  for (int64_t i = lane * width; i < problem.features; i += warp_lanes * width) {
    auto values = load_floats<width>(input + i);
    const auto weight = load_floats<width>(problem.weight + i);
#pragma unroll
    for (int k = 0; k < width; ++k) values.value[k] = values.value[k] * inverse * weight.value[k];
    store_floats(output + i, values);
  }
}

template <class T>
struct Backward {
  const T* grad_output;
  const T* input;
  const T* weight;
  const float* inverse_rms;
  T* grad_input;
  float* partial_sums;  // [ranges, features]
  int64_t tokens, features;
  int64_t range;  // tokens of a range
};

// A warp computes a token.
template <class T, int width>
__global__ void __launch_bounds__(rows_of_block* warp_lanes) grad_input_kernel(Backward<T> problem) {
  const int64_t token = static_cast<int64_t>(blockIdx.x) * rows_of_block + threadIdx.x / warp_lanes;
  if (token >= problem.tokens) return;
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  const int64_t row = token * problem.features;
  const float sum = warp_row_sum(
      problem.features, Products<T, (width > 1)>{problem.grad_output + row, problem.weight, problem.input + row});
  const auto contribution = NormContribution::of(problem.inverse_rms[token], sum, static_cast<float>(problem.features));
  for (int64_t i = lane * width; i < problem.features; i += warp_lanes * width) {
    const auto grad_output = load_floats<width>(problem.grad_output + row + i);
    const auto input = load_floats<width>(problem.input + row + i);
    const auto weight = load_floats<width>(problem.weight + i);
    auto grad_input = load_floats<width>(problem.grad_input + row + i);
#pragma unroll
    for (int k = 0; k < width; ++k) {
      float of_weight = 0;  // the other kernel computes this one
      contribution.add(grad_output.value[k], input.value[k], weight.value[k], grad_input.value[k], of_weight);
    }
    store_floats(problem.grad_input + row + i, grad_input);
  }
}

// A thread sums a pair of columns over a range of tokens, in order.
template <class T, int width>
__global__ void partial_sums_kernel(Backward<T> problem) {
  const int64_t column = global_thread() * width;
  if (column >= problem.features) return;
  const int64_t begin = blockIdx.y * problem.range;
  const int64_t end = begin + problem.range < problem.tokens ? begin + problem.range : problem.tokens;
  Pack<float, width> sum{};
#pragma unroll 8
  for (int64_t token = begin; token < end; ++token) {
    const int64_t offset = token * problem.features + column;
    const auto grad_output = load_floats<width>(problem.grad_output + offset);
    const auto input = load_floats<width>(problem.input + offset);
    const NormContribution contribution{problem.inverse_rms[token], 0};
#pragma unroll
    for (int k = 0; k < width; ++k) {
      float of_input = 0;  // the other kernel computes this one
      contribution.add(grad_output.value[k], input.value[k], 0.0f, of_input, sum.value[k]);
    }
  }
  store_pack(problem.partial_sums + blockIdx.y * problem.features + column, sum);
}

}  // namespace

void rms_norm_forward(const RmsNormForward& problem) {
  const DType dtype = problem.output.dtype();
  const int64_t tokens = problem.output.rows();
  const int64_t width = problem.output.cols();
  with_storage_type(dtype, [&]<class T>(T) {
    const Forward<T> forward{problem.input.as<T>(),
                             problem.weight.as<T>(),
                             static_cast<float>(problem.epsilon),
                             problem.output.as<T>(),
                             problem.inverse_rms.as<float>(),
                             tokens,
                             width};
    const bool fits = in_packs(widest_pack<T>, sizeof(T), width, {forward.input, forward.weight, forward.output});
    with_pack<widest_pack<T>>(
        fits, [&](auto pack) { launch("rms_norm_forward", forward_kernel<T, pack()>, warp_a_row(tokens), forward); });
  });
}

void rms_norm_backward(const RmsNormBackward& problem) {
  const DType dtype = problem.grad_output.dtype();
  const int64_t tokens = problem.grad_output.rows();
  const int64_t width = problem.grad_output.cols();
  if (tokens == 0) return;
  const TokenRanges ranges = TokenRanges::of(tokens);
  with_storage_type(dtype, [&]<class T>(T) {
    const Backward<T> backward{.grad_output = problem.grad_output.as<T>(),
                               .input = problem.input.as<T>(),
                               .weight = problem.weight.as<T>(),
                               .inverse_rms = problem.inverse_rms.as<float>(),
                               .grad_input = problem.grad_input.as<T>(),
                               .partial_sums = problem.workspace.as<float>(),
                               .tokens = tokens,
                               .features = width,
                               .range = ranges.length};
    const auto fits = [&](int count) {
      return in_packs(count, sizeof(T), width,
                      {backward.grad_output, backward.input, backward.weight, backward.grad_input}) &&
             in_packs(count, sizeof(float), width, {backward.partial_sums});
    };
    with_pack<widest_pack<T>>(fits(widest_pack<T>), [&](auto pack) {
      launch("rms_norm_grad_input", grad_input_kernel<T, pack()>, warp_a_row(tokens), backward);
    });
    constexpr int threads = 128;
    with_pack<2>(fits(2), [&](auto pack) {
      LaunchShape shape = one_thread_each(div_ceil<int64_t>(width, pack()), threads);
      shape.grid.y = narrow<unsigned>(ranges.count);
      launch("rms_norm_partial_sums", partial_sums_kernel<T, pack()>, shape, backward);
    });
  });
  cuda::add_range_sums({.sums = problem.workspace.slice(0, ranges.count),
                        .gradient = problem.grad_weight,
                        .continues = problem.continues});
}

}  // namespace nibble::cuda
