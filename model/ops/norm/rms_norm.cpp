#include "model/ops/norm/rms_norm.h"

#include <algorithm>

#include "dist/device/dispatch.h"
#include "dist/device/profile.h"
#include "dist/device/thread_pool.h"
#include "model/ops/norm/rms_norm_rows.h"

namespace nibble {
namespace {

template <class T>
NIBBLE_VECTORIZE void forward_rows(const ForwardRows<T>& rows, size_t begin, size_t end) {
  normalise_rows(rows, begin, end);
}

template <class T>
NIBBLE_VECTORIZE void backward_range(const BackwardRows<T>& rows, size_t begin, size_t end) {
  for (size_t row = begin; row < end; row += rows_together) {
    backward_rows</*adds=*/true>(rows, row, std::min(end, row + rows_together));
  }
}

void check(const RmsNormForward& problem) {
  const DType dtype = problem.output.dtype();
  const int64_t tokens = problem.output.rows();
  const int64_t width = problem.output.cols();
  check_matrix(problem.input, dtype, tokens, width);
  check_vector(problem.weight, dtype, width);
  check_vector(problem.inverse_rms, DType::f32, tokens);
}

void check(const RmsNormBackward& problem) {
  const DType dtype = problem.grad_output.dtype();
  const int64_t tokens = problem.grad_output.rows();
  const int64_t width = problem.grad_output.cols();
  check_matrix(problem.input, dtype, tokens, width);
  check_matrix(problem.grad_input, dtype, tokens, width);
  check_vector(problem.weight, dtype, width);
  check_vector(problem.inverse_rms, DType::f32, tokens);
  check_vector(problem.grad_weight, DType::f32, width);
  check_matrix(problem.workspace, DType::f32, token_ranges, width);
}

}  // namespace

namespace cpu {

void rms_norm_forward(const RmsNormForward& problem) {
  const DType dtype = problem.output.dtype();
  const int64_t tokens = problem.output.rows();
  const int64_t width = problem.output.cols();
  with_storage_type(dtype, [&]<class T>(T) {
    const ForwardRows<T> rows{
        problem.input.as<T>(),  problem.weight.as<T>(),          static_cast<float>(problem.epsilon),
        problem.output.as<T>(), problem.inverse_rms.as<float>(), static_cast<size_t>(width)};
    parallel_for(static_cast<size_t>(tokens), rows_together,
                 [&](size_t begin, size_t end) { forward_rows(rows, begin, end); });
  });
}

void rms_norm_backward(const RmsNormBackward& problem) {
  const DType dtype = problem.grad_output.dtype();
  const int64_t tokens = problem.grad_output.rows();
  const int64_t width = problem.grad_output.cols();
  const auto features = static_cast<size_t>(width);
  const TokenRanges ranges = TokenRanges::of(tokens);
  float* const sums = problem.workspace.as<float>();  // [token_ranges, features]
  with_storage_type(dtype, [&]<class T>(T) {
    parallel_for(static_cast<size_t>(ranges.count), 1, [&](size_t first, size_t last) {
      for (size_t range = first; range < last; ++range) {
        float* const sum = sums + range * features;
        std::fill_n(sum, features, 0.0f);
        const BackwardRows<T> rows{problem.grad_output.as<T>(),
                                   problem.input.as<T>(),
                                   problem.weight.as<T>(),
                                   problem.inverse_rms.as<float>(),
                                   problem.grad_input.as<T>(),
                                   features,
                                   sum,
                                   /*grad_weight_stride=*/0};
        const size_t begin = range * static_cast<size_t>(ranges.length);
        backward_range(rows, begin, std::min(static_cast<size_t>(tokens), begin + static_cast<size_t>(ranges.length)));
      }
    });
  });
  add_range_sums({.sums = problem.workspace.slice(0, ranges.count),
                  .gradient = problem.grad_weight,
                  .continues = problem.continues});
}

}  // namespace cpu

void rms_norm_forward(const RmsNormForward& problem) {
  const ProfileScope scope(OperatorFamily::norm, "rms_norm_forward");
  check(problem);
  NIBBLE_DISPATCH(problem.output.device(), rms_norm_forward, problem);
}

void rms_norm_backward(const RmsNormBackward& problem) {
  const ProfileScope scope(OperatorFamily::norm, "rms_norm_backward");
  check(problem);
  NIBBLE_DISPATCH(problem.grad_output.device(), rms_norm_backward, problem);
}

}  // namespace nibble
