#include "model/ops/norm/head_norm.h"

#include <cmath>

#include "dist/device/launch.cuh"
#include "model/ops/norm/rms_norm_rows.cuh"
#include "model/ops/row/storage.h"

namespace nibble::cuda {
namespace {

template <class T>
struct Forward {
  const T* input;
  const T* query_weight;
  const T* key_weight;
  float epsilon;
  T* output;
  float* inverse_rms;
  int64_t tokens, query_heads, kv_heads, head_dim;
};

// A warp normalises a head of a token, or copies it.
template <class T, int width>
__global__ void __launch_bounds__(rows_of_block* warp_lanes) forward_kernel(Forward<T> problem) {
  const int64_t heads = problem.query_heads + 2 * problem.kv_heads;
  const int64_t normed = problem.query_heads + problem.kv_heads;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * rows_of_block + threadIdx.x / warp_lanes;
  if (row >= problem.tokens * heads) return;
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  const int64_t token = row / heads;
  const int64_t head = row % heads;
  const T* const input = problem.input + row * problem.head_dim;
  T* const output = problem.output + row * problem.head_dim;
  if (head >= normed) {
    for (int64_t i = lane * width; i < problem.head_dim; i += warp_lanes * width) {
      store_pack(output + i, load_pack<width>(input + i));
    }
    return;
  }
  const T* const weights = head < problem.query_heads ? problem.query_weight : problem.key_weight;
  const float sum = warp_row_sum(problem.head_dim, Squares<T, (width > 1)>{input});
  const float inverse = 1.0f / std::sqrt(sum / static_cast<float>(problem.head_dim) + problem.epsilon);
  if (lane == 0) problem.inverse_rms[token * normed + head] = inverse;
  for (int64_t i = lane * width; i < problem.head_dim; i += warp_lanes * width) {
    auto values = load_floats<width>(input + i);
    const auto weight = load_floats<width>(weights + i);
#pragma unroll
    for (int k = 0; k < width; ++k) values.value[k] = values.value[k] * inverse * weight.value[k];
    store_floats(output + i, values);
  }
}

template <class T>
struct Backward {
  T* gradient;
  const T* input;
  const T* query_weight;
  const T* key_weight;
  const float* inverse_rms;
  float* query_sums;  // [ranges, query heads, head_dim]
  float* key_sums;    // [ranges, key heads, head_dim]
  int64_t tokens, query_heads, kv_heads, head_dim;
  int64_t range;  // tokens of a range
};

// A warp computes a head of a token.
template <class T, int width>
__global__ void __launch_bounds__(rows_of_block* warp_lanes) grad_input_kernel(Backward<T> problem) {
  const int64_t normed = problem.query_heads + problem.kv_heads;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * rows_of_block + threadIdx.x / warp_lanes;
  if (row >= problem.tokens * normed) return;
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  const int64_t head = row % normed;
  const int64_t first = (row / normed * (normed + problem.kv_heads) + head) * problem.head_dim;
  const T* const weights = head < problem.query_heads ? problem.query_weight : problem.key_weight;
  const float sum = warp_row_sum(problem.head_dim,
                                 Products<T, (width > 1)>{problem.gradient + first, weights, problem.input + first});
  const auto contribution = NormContribution::of(problem.inverse_rms[row], sum, static_cast<float>(problem.head_dim));
  for (int64_t i = lane * width; i < problem.head_dim; i += warp_lanes * width) {
    const auto gradient = load_floats<width>(problem.gradient + first + i);
    const auto input = load_floats<width>(problem.input + first + i);
    const auto weight = load_floats<width>(weights + i);
    Pack<float, width> result{};
#pragma unroll
    for (int k = 0; k < width; ++k) {
      float of_weight = 0;  // the other kernel computes this one
      contribution.add(gradient.value[k], input.value[k], weight.value[k], result.value[k], of_weight);
    }
    store_floats(problem.gradient + first + i, result);
  }
}

// A thread sums a pair of columns over a range of tokens, in order.
template <class T, int width>
__global__ void partial_sums_kernel(Backward<T> problem) {
  const int64_t normed = problem.query_heads + problem.kv_heads;
  const int64_t column = global_thread() * width;
  if (column >= normed * problem.head_dim) return;
  const int64_t head = column / problem.head_dim;
  const int64_t stride = (normed + problem.kv_heads) * problem.head_dim;
  const int64_t begin = blockIdx.y * problem.range;
  const int64_t end = begin + problem.range < problem.tokens ? begin + problem.range : problem.tokens;
  Pack<float, width> sum{};
#pragma unroll 8
  for (int64_t token = begin; token < end; ++token) {
    const auto gradient = load_floats<width>(problem.gradient + token * stride + column);
    const auto input = load_floats<width>(problem.input + token * stride + column);
    const NormContribution contribution{problem.inverse_rms[token * normed + head], 0};
#pragma unroll
    for (int k = 0; k < width; ++k) {
      float of_input = 0;  // the other kernel computes this one
      contribution.add(gradient.value[k], input.value[k], 0.0f, of_input, sum.value[k]);
    }
  }
  const int64_t queries = problem.query_heads * problem.head_dim;
  const int64_t keys = problem.kv_heads * problem.head_dim;
  float* const sums = column < queries ? problem.query_sums + blockIdx.y * queries + column
                                       : problem.key_sums + blockIdx.y * keys + (column - queries);
  store_pack(sums, sum);
}

}  // namespace

void head_norm_forward(const HeadNormForward& problem) {
  const HeadShape& shape = problem.shape;
  const int64_t tokens = problem.output.rows();
  with_storage_type(problem.output.dtype(), [&]<class T>(T) {
    const Forward<T> forward{.input = problem.input.as<T>(),
                             .query_weight = problem.query_weight.as<T>(),
                             .key_weight = problem.key_weight.as<T>(),
                             .epsilon = static_cast<float>(problem.epsilon),
                             .output = problem.output.as<T>(),
                             .inverse_rms = problem.inverse_rms.as<float>(),
                             .tokens = tokens,
                             .query_heads = shape.query_heads,
                             .kv_heads = shape.kv_heads,
                             .head_dim = shape.head_dim};
    const bool fits = in_packs(widest_pack<T>, sizeof(T), shape.head_dim,
                               {forward.input, forward.query_weight, forward.key_weight, forward.output});
    with_pack<widest_pack<T>>(fits, [&](auto pack) {
      launch("head_norm_forward", forward_kernel<T, pack()>,
             warp_a_row(tokens * (shape.query_heads + 2 * shape.kv_heads)), forward);
    });
  });
}

void head_norm_backward(const HeadNormBackward& problem) {
  const HeadShape& shape = problem.shape;
  const int64_t tokens = problem.gradient.rows();
  if (tokens == 0) return;
  const TokenRanges ranges = TokenRanges::of(tokens);
  const HeadNormSums sums = head_norm_sums(problem, ranges.count);
  with_storage_type(problem.gradient.dtype(), [&]<class T>(T) {
    const Backward<T> backward{.gradient = problem.gradient.as<T>(),
                               .input = problem.input.as<T>(),
                               .query_weight = problem.query_weight.as<T>(),
                               .key_weight = problem.key_weight.as<T>(),
                               .inverse_rms = problem.inverse_rms.as<float>(),
                               .query_sums = sums.query.as<float>(),
                               .key_sums = sums.key.as<float>(),
                               .tokens = tokens,
                               .query_heads = shape.query_heads,
                               .kv_heads = shape.kv_heads,
                               .head_dim = shape.head_dim,
                               .range = ranges.length};
    const auto fits = [&](int count) {
      return in_packs(count, sizeof(T), shape.head_dim,
                      {backward.gradient, backward.input, backward.query_weight, backward.key_weight}) &&
             in_packs(count, sizeof(float), shape.head_dim, {backward.query_sums, backward.key_sums});
    };
    // The sums read the gradients that the other kernel replaces.
    constexpr int threads = 128;
    with_pack<2>(fits(2), [&](auto pack) {
      LaunchShape launched = one_thread_each(div_ceil<int64_t>(shape.normed_heads() * shape.head_dim, pack()), threads);
      launched.grid.y = narrow<unsigned>(ranges.count);
      launch("head_norm_partial_sums", partial_sums_kernel<T, pack()>, launched, backward);
    });
    with_pack<widest_pack<T>>(fits(widest_pack<T>), [&](auto pack) {
      launch("head_norm_grad_input", grad_input_kernel<T, pack()>, warp_a_row(tokens * shape.normed_heads()), backward);
    });
  });
  cuda::add_range_sums({.sums = sums.query, .gradient = problem.grad_query_weight});
  cuda::add_range_sums({.sums = sums.key, .gradient = problem.grad_key_weight});
}

}  // namespace nibble::cuda
