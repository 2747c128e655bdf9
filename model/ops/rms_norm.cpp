#include "model/ops/rms_norm.h"

#include <algorithm>
#include <cmath>

#include "dist/profile.h"
#include "dist/thread_pool.h"
#include "dist/vectorize.h"
#include "model/ops/row_math.h"
#include "model/ops/storage.h"

namespace nibble {
namespace {

constexpr size_t token_grain = 16;

template <class T>
NIBBLE_VECTORIZE float sum_of_squares(const T* input, size_t features) {
  LaneSum sum;
  const size_t whole = whole_lanes(features);
  for (size_t i = 0; i < whole; i += LaneSum::lanes) {
    for (size_t lane = 0; lane < LaneSum::lanes; ++lane) {
      const float x = to_float(input[i + lane]);
      sum.lane[lane] += x * x;
    }
  }
  for (size_t i = whole; i < features; ++i) sum.lane[i - whole] += to_float(input[i]) * to_float(input[i]);
  return sum.total();
}

template <class T>
NIBBLE_VECTORIZE void scale_row(const T* __restrict input, const T* __restrict weight, float inverse_rms,
                                T* __restrict output, size_t features) {
  for (size_t i = 0; i < features; ++i) store(output[i], to_float(input[i]) * inverse_rms * to_float(weight[i]));
}

// Sum of grad_output * weight * input over a row.
template <class T>
NIBBLE_VECTORIZE float projection(const T* grad_output, const T* input, const T* weight, size_t features) {
  LaneSum sum;
  const size_t whole = whole_lanes(features);
  for (size_t i = 0; i < whole; i += LaneSum::lanes) {
    for (size_t lane = 0; lane < LaneSum::lanes; ++lane) {
      const size_t at = i + lane;
      sum.lane[lane] += to_float(grad_output[at]) * to_float(weight[at]) * to_float(input[at]);
    }
  }
  for (size_t i = whole; i < features; ++i) {
    sum.lane[i - whole] += to_float(grad_output[i]) * to_float(weight[i]) * to_float(input[i]);
  }
  return sum.total();
}

// shrink = inverse_rms^2 * projection / features: the gradient's part along the normalised row is removed.
template <class T>
NIBBLE_VECTORIZE void backward_row(const T* __restrict grad_output, const T* __restrict input,
                                   const T* __restrict weight, float inverse_rms, float shrink,
                                   T* __restrict grad_input, float* __restrict grad_weight, size_t features) {
  for (size_t i = 0; i < features; ++i) {
    const float gradient = to_float(grad_output[i]);
    const float x = to_float(input[i]);
    grad_weight[i] += gradient * (x * inverse_rms);
    const float addend = inverse_rms * (gradient * to_float(weight[i]) - x * shrink);
    store(grad_input[i], to_float(grad_input[i]) + addend);
  }
}

NIBBLE_VECTORIZE void add_rows(const float* __restrict rows, size_t count, size_t stride, float* __restrict sum,
                               size_t features) {
  for (size_t row = 0; row < count; ++row) {
    for (size_t i = 0; i < features; ++i) sum[i] += rows[row * stride + i];
  }
}

template <class T>
struct BackwardPointers {
  const T* grad_output;
  const T* input;
  const T* weight;
  const float* inverse_rms;
  T* grad_input;
  size_t features;

  void tokens(size_t begin, size_t end, float* grad_weight) const {
    std::fill_n(grad_weight, features, 0.0f);
    for (size_t token = begin; token < end; ++token) {
      const size_t row = token * features;
      const float inverse = inverse_rms[token];
      const float sum = projection(grad_output + row, input + row, weight, features);
      const float shrink = sum * inverse * inverse / static_cast<float>(features);
      backward_row(grad_output + row, input + row, weight, inverse, shrink, grad_input + row, grad_weight, features);
    }
  }
};

}  // namespace

namespace cpu {

static void rms_norm_forward(const RmsNormForward& problem) {
  const DType dtype = problem.output.dtype();
  const int64_t tokens = problem.output.rows();
  const int64_t width = problem.output.cols();
  check_matrix(problem.input, dtype, tokens, width);
  check_vector(problem.weight, dtype, width);
  check_vector(problem.inverse_rms, DType::f32, tokens);
  with_storage_type(dtype, [&]<class T>(T) {
    const size_t features = static_cast<size_t>(width);
    const float epsilon = static_cast<float>(problem.epsilon);
    const T* input = problem.input.as<T>();
    const T* weight = problem.weight.as<T>();
    T* output = problem.output.as<T>();
    float* inverse_rms = problem.inverse_rms.as<float>();
    parallel_for(static_cast<size_t>(tokens), token_grain, [=](size_t begin, size_t end) {
      for (size_t token = begin; token < end; ++token) {
        const T* row = input + token * features;
        const float mean = sum_of_squares(row, features) / static_cast<float>(features);
        inverse_rms[token] = 1.0f / std::sqrt(mean + epsilon);
        scale_row(row, weight, inverse_rms[token], output + token * features, features);
      }
    });
  });
}

static void rms_norm_backward(const RmsNormBackward& problem) {
  const DType dtype = problem.grad_output.dtype();
  const int64_t tokens = problem.grad_output.rows();
  const int64_t width = problem.grad_output.cols();
  check_matrix(problem.input, dtype, tokens, width);
  check_matrix(problem.grad_input, dtype, tokens, width);
  check_vector(problem.weight, dtype, width);
  check_vector(problem.inverse_rms, DType::f32, tokens);
  check_vector(problem.grad_weight, DType::f32, width);
  check_matrix(problem.workspace, DType::f32, rms_norm_workspace_rows, width);
  float* partial_sums = problem.workspace.as<float>();  // [rms_norm_workspace_rows, features]
  const size_t features = static_cast<size_t>(width);
  const size_t count = static_cast<size_t>(tokens);
  const size_t chunk = div_ceil<size_t>(count, rms_norm_workspace_rows);
  const size_t chunks = count == 0 ? 0 : div_ceil(count, chunk);
  with_storage_type(dtype, [&]<class T>(T) {
    const BackwardPointers<T> rows{problem.grad_output.as<T>(),     problem.input.as<T>(),      problem.weight.as<T>(),
                                   problem.inverse_rms.as<float>(), problem.grad_input.as<T>(), features};
    parallel_for(chunks, 1, [&](size_t begin, size_t end) {
      for (size_t i = begin; i < end; ++i) {
        rows.tokens(i * chunk, std::min(count, (i + 1) * chunk), partial_sums + i * features);
      }
    });
  });
  float* grad_weight = problem.grad_weight.as<float>();
  constexpr size_t column_grain = 512;
  parallel_for(features, column_grain, [=](size_t begin, size_t end) {
    add_rows(partial_sums + begin, chunks, features, grad_weight + begin, end - begin);
  });
}

}  // namespace cpu

void rms_norm_forward(const RmsNormForward& problem) {
  const ProfileScope scope(OperatorFamily::norm, "rms_norm_forward");
  NIBBLE_DISPATCH(problem.output.device(), rms_norm_forward, problem);
}

void rms_norm_backward(const RmsNormBackward& problem) {
  const ProfileScope scope(OperatorFamily::norm, "rms_norm_backward");
  NIBBLE_DISPATCH(problem.grad_output.device(), rms_norm_backward, problem);
}

}  // namespace nibble
