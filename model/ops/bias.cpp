#include "model/ops/bias.h"

#include <algorithm>

#include "dist/base/vectorize.h"
#include "dist/device/dispatch.h"
#include "dist/device/profile.h"
#include "dist/device/thread_pool.h"
#include "model/ops/row/lanes.h"
#include "model/ops/row/map_row.h"
#include "model/ops/row/storage.h"

namespace nibble {
namespace {

constexpr size_t token_grain = 16;

struct Sum {
  NIBBLE_INLINE float operator()(float a, float b) const { return a + b; }
};

template <class T>
NIBBLE_VECTORIZE void add_to_rows(T* rows, const T* bias, size_t count, size_t features) {
  for (size_t row = 0; row < count; ++row) map_row(features, rows + row * features, Sum{}, rows + row * features, bias);
}

// Adds rows to a sum, in which the even and the odd ones of 32 elements stand apart, as in RangeSums.
template <class T>
NIBBLE_VECTORIZE void add_rows(const T* rows, size_t count, size_t features, float* sums) {
  Lanes terms[2];
  Lanes sum;
  for (size_t row = 0; row < count; ++row) {
    const T* const values = rows + row * features;
    size_t i = 0;
    for (; i + pair_lanes <= features; i += pair_lanes) {
      load_pairs(terms[0], terms[1], values + i);
      for (size_t half = 0; half < 2; ++half) {
        load(sum, sums + i + half * lanes);
        sum += terms[half];
        store(sums + i + half * lanes, sum);
      }
    }
    for (; i < features; ++i) sums[i] += to_float(values[i]);
  }
}

}  // namespace

namespace cpu {

void add_bias(const Tensor& matrix, const Tensor& bias) {
  const auto features = static_cast<size_t>(matrix.cols());
  with_storage_type(matrix.dtype(), [&]<class T>(T) {
    parallel_for(static_cast<size_t>(matrix.rows()), token_grain,
                 [rows = matrix.as<T>(), values = bias.as<T>(), features](size_t begin, size_t end) {
                   add_to_rows(rows + begin * features, values, end - begin, features);
                 });
  });
}

void bias_backward(const BiasBackward& problem) {
  const auto features = static_cast<size_t>(problem.grad_output.cols());
  const auto tokens = static_cast<size_t>(problem.grad_output.rows());
  const TokenRanges ranges = TokenRanges::of(problem.grad_output.rows());
  const auto length = static_cast<size_t>(ranges.length);
  with_storage_type(problem.grad_output.dtype(), [&]<class T>(T) {
    parallel_for(static_cast<size_t>(ranges.count), 1, [&](size_t first, size_t last) {
      for (size_t range = first; range < last; ++range) {
        float* const sums = problem.workspace.as<float>() + range * features;
        std::fill_n(sums, features, 0.0f);
        const size_t begin = range * length;
        add_rows(problem.grad_output.as<T>() + begin * features, std::min(tokens, begin + length) - begin, features,
                 sums);
      }
    });
  });
  add_range_sums({.sums = problem.workspace.slice(0, ranges.count), .gradient = problem.grad_bias});
}

}  // namespace cpu

void add_bias(const Tensor& matrix, const Tensor& bias) {
  const ProfileScope scope(OperatorFamily::norm, "add_bias");
  check_vector(bias, matrix.dtype(), matrix.cols());
  NIBBLE_DISPATCH(matrix.device(), add_bias, matrix, bias);
}

void bias_backward(const BiasBackward& problem) {
  const ProfileScope scope(OperatorFamily::norm, "bias_backward");
  check_vector(problem.grad_bias, DType::f32, problem.grad_output.cols());
  check_matrix(problem.workspace, DType::f32, token_ranges, problem.grad_output.cols());
  NIBBLE_DISPATCH(problem.grad_output.device(), bias_backward, problem);
}

}  // namespace nibble
