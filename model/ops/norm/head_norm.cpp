#include "model/ops/norm/head_norm.h"

#include <algorithm>

#include "dist/device/dispatch.h"
#include "dist/device/profile.h"
#include "dist/device/thread_pool.h"
#include "model/ops/norm/rms_norm_rows.h"

namespace nibble {
namespace {

constexpr size_t token_grain = 16;

// The query heads of a token, or its key heads.
template <class T>
struct HeadGroup {
  const T* weight;      // [head_dim]
  size_t first, count;  // heads
};

template <class T>
struct ForwardTokens {
  const T* input;
  T* output;
  float* inverse_rms;
  float epsilon;
  size_t features, head_dim;
  HeadGroup<T> queries, keys;
};

template <class T>
NIBBLE_VECTORIZE void forward_tokens(const ForwardTokens<T>& tokens, size_t begin, size_t end) {
  const size_t normed = tokens.queries.count + tokens.keys.count;
  for (size_t token = begin; token < end; ++token) {
    const T* const input = tokens.input + token * tokens.features;
    T* const output = tokens.output + token * tokens.features;
    for (const HeadGroup<T>& heads : {tokens.queries, tokens.keys}) {
      const size_t first = heads.first * tokens.head_dim;
      normalise_rows(ForwardRows<T>{input + first, heads.weight, tokens.epsilon, output + first,
                                    tokens.inverse_rms + token * normed + heads.first, tokens.head_dim},
                     0, heads.count);
    }
    const size_t values = normed * tokens.head_dim;
    std::copy(input + values, input + tokens.features, output + values);
  }
}

template <class T>
struct BackwardTokens {
  T* gradient;
  const T* input;
  const float* inverse_rms;
  size_t features, head_dim;
  HeadGroup<T> queries, keys;
};

// Adds the terms of the heads' weights to sums, f32 [query heads, head_dim] and [key heads, head_dim].
template <class T>
NIBBLE_VECTORIZE void backward_tokens(const BackwardTokens<T>& tokens, size_t begin, size_t end, float* query_sums,
                                      float* key_sums) {
  const size_t normed = tokens.queries.count + tokens.keys.count;
  for (size_t token = begin; token < end; ++token) {
    for (const HeadGroup<T>* heads : {&tokens.queries, &tokens.keys}) {
      const size_t first = token * tokens.features + heads->first * tokens.head_dim;
      const BackwardRows<T> rows{tokens.gradient + first,
                                 tokens.input + first,
                                 heads->weight,
                                 tokens.inverse_rms + token * normed + heads->first,
                                 tokens.gradient + first,
                                 tokens.head_dim,
                                 heads == &tokens.queries ? query_sums : key_sums,
                                 /*grad_weight_stride=*/tokens.head_dim};
      for (size_t row = 0; row < heads->count; row += rows_together) {
        backward_rows</*adds=*/false>(rows, row, std::min(heads->count, row + rows_together));
      }
    }
  }
}

void check(const HeadShape& shape, const Tensor& rows, const Tensor& others, const Tensor& inverse_rms) {
  NIBBLE_CHECK(shape.query_heads > 0 && shape.kv_heads > 0 && shape.head_dim > 0 && shape.head_dim % 2 == 0,
               "heads of an even size");
  check_matrix(rows, rows.dtype(), rows.rows(), shape.features());
  check_matrix(others, rows.dtype(), rows.rows(), shape.features());
  check_matrix(inverse_rms, DType::f32, rows.rows(), shape.normed_heads());
}

template <class T>
HeadGroup<T> group_of(const Tensor& weight, int64_t first, int64_t count) {
  return {weight.as<T>(), static_cast<size_t>(first), static_cast<size_t>(count)};
}

}  // namespace

HeadNormSums head_norm_sums(const HeadNormBackward& problem, int64_t ranges) {
  const HeadShape& shape = problem.shape;
  const Tensor rows = problem.workspace.reshape({token_ranges * shape.normed_heads(), shape.head_dim});
  const int64_t queries = ranges * shape.query_heads;
  return {rows.slice(0, queries), rows.slice(queries, queries + ranges * shape.kv_heads)};
}

namespace cpu {

void head_norm_forward(const HeadNormForward& problem) {
  const HeadShape& shape = problem.shape;
  with_storage_type(problem.output.dtype(), [&]<class T>(T) {
    const ForwardTokens<T> tokens{.input = problem.input.as<T>(),
                                  .output = problem.output.as<T>(),
                                  .inverse_rms = problem.inverse_rms.as<float>(),
                                  .epsilon = static_cast<float>(problem.epsilon),
                                  .features = static_cast<size_t>(shape.features()),
                                  .head_dim = static_cast<size_t>(shape.head_dim),
                                  .queries = group_of<T>(problem.query_weight, 0, shape.query_heads),
                                  .keys = group_of<T>(problem.key_weight, shape.query_heads, shape.kv_heads)};
    parallel_for(static_cast<size_t>(problem.output.rows()), token_grain,
                 [&](size_t begin, size_t end) { forward_tokens(tokens, begin, end); });
  });
}

void head_norm_backward(const HeadNormBackward& problem) {
  const HeadShape& shape = problem.shape;
  const auto count = static_cast<size_t>(problem.gradient.rows());
  const TokenRanges ranges = TokenRanges::of(problem.gradient.rows());
  const auto length = static_cast<size_t>(ranges.length);
  const HeadNormSums sums = head_norm_sums(problem, ranges.count);
  with_storage_type(problem.gradient.dtype(), [&]<class T>(T) {
    const BackwardTokens<T> tokens{.gradient = problem.gradient.as<T>(),
                                   .input = problem.input.as<T>(),
                                   .inverse_rms = problem.inverse_rms.as<float>(),
                                   .features = static_cast<size_t>(shape.features()),
                                   .head_dim = static_cast<size_t>(shape.head_dim),
                                   .queries = group_of<T>(problem.query_weight, 0, shape.query_heads),
                                   .keys = group_of<T>(problem.key_weight, shape.query_heads, shape.kv_heads)};
    const size_t query_sums = tokens.queries.count * tokens.head_dim;  // of a range
    const size_t key_sums = tokens.keys.count * tokens.head_dim;
    parallel_for(static_cast<size_t>(ranges.count), 1, [&](size_t first, size_t last) {
      for (size_t range = first; range < last; ++range) {
        float* const query = sums.query.as<float>() + range * query_sums;
        float* const key = sums.key.as<float>() + range * key_sums;
        std::fill_n(query, query_sums, 0.0f);
        std::fill_n(key, key_sums, 0.0f);
        backward_tokens(tokens, range * length, std::min(count, (range + 1) * length), query, key);
      }
    });
  });
  add_range_sums({.sums = sums.query, .gradient = problem.grad_query_weight});
  add_range_sums({.sums = sums.key, .gradient = problem.grad_key_weight});
}

}  // namespace cpu

void head_norm_forward(const HeadNormForward& problem) {
  const ProfileScope scope(OperatorFamily::norm, "head_norm_forward");
  check(problem.shape, problem.output, problem.input, problem.inverse_rms);
  check_vector(problem.query_weight, problem.output.dtype(), problem.shape.head_dim);
  check_vector(problem.key_weight, problem.output.dtype(), problem.shape.head_dim);
  NIBBLE_DISPATCH(problem.output.device(), head_norm_forward, problem);
}

void head_norm_backward(const HeadNormBackward& problem) {
  const ProfileScope scope(OperatorFamily::norm, "head_norm_backward");
  check(problem.shape, problem.gradient, problem.input, problem.inverse_rms);
  for (const Tensor& weight : {problem.query_weight, problem.key_weight}) {
    check_vector(weight, problem.gradient.dtype(), problem.shape.head_dim);
  }
  for (const Tensor& gradient : {problem.grad_query_weight, problem.grad_key_weight}) {
    check_vector(gradient, DType::f32, problem.shape.head_dim);
  }
  check_vector(problem.workspace, DType::f32, token_ranges * problem.shape.normed_heads() * problem.shape.head_dim);
  NIBBLE_DISPATCH(problem.gradient.device(), head_norm_backward, problem);
}

}  // namespace nibble
