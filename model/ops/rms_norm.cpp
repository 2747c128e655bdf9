#include "model/ops/rms_norm.h"

#include <algorithm>
#include <cmath>

#include "dist/base/vectorize.h"
#include "dist/device/dispatch.h"
#include "dist/device/profile.h"
#include "dist/device/thread_pool.h"
#include "model/ops/rms_norm_math.h"
#include "model/ops/row/map_row.h"
#include "model/ops/row/row_math.h"
#include "model/ops/row/storage.h"

namespace nibble {
namespace {

constexpr size_t token_grain = 16;

template <class T>
struct Squares {
  const T* input;
  NIBBLE_INLINE void load(size_t i, Lanes& first, Lanes& second) const {
    load_pairs(first, second, input + i);
    first *= first;
    second *= second;
  }
  NIBBLE_INLINE float one(size_t i) const { return to_float(input[i]) * to_float(input[i]); }
};

struct Scaled {
  float factor;
  NIBBLE_INLINE float operator()(float x, float weight) const { return x * factor * weight; }
};

// The sum and the root of a row have a long latency; several rows are processed together so that their latencies
// overlap.
template <class T>
struct ForwardRows {
  const T* input;
  const T* weight;
  float epsilon;
  T* output;
  float* inverse_rms;
  size_t features;
};

template <class T>
NIBBLE_VECTORIZE void forward_rows(const ForwardRows<T>& rows, size_t begin, size_t end) {
  const size_t features = rows.features;
  const float count = static_cast<float>(features);
  for (size_t token = begin; token < end; ++token) {
    rows.inverse_rms[token] = row_sum(features, Squares<T>{rows.input + token * features});
  }
  for (size_t token = begin; token < end; ++token) {
    rows.inverse_rms[token] = 1.0f / std::sqrt(rows.inverse_rms[token] / count + rows.epsilon);
  }
  for (size_t token = begin; token < end; ++token) {
    const size_t row = token * features;
    map_row(features, rows.output + row, Scaled{rows.inverse_rms[token]}, rows.input + row, rows.weight);
  }
}

template <class T>
struct BackwardRows {
  const T* grad_output;
  const T* input;
  const T* weight;
  const float* inverse_rms;
  T* grad_input;
  size_t features;
};

// The terms grad_output * weight * input of a row.
template <class T>
struct Products {
  const T* grad_output;
  const T* weight;
  const T* input;
  NIBBLE_INLINE void load(size_t i, Lanes& first, Lanes& second) const {
    load_pairs(first, second, grad_output + i);
    Lanes even;
    Lanes odd;
    load_pairs(even, odd, weight + i);
    first *= even;
    second *= odd;
    load_pairs(even, odd, input + i);
    first *= even;
    second *= odd;
  }
  NIBBLE_INLINE float one(size_t i) const {
    return to_float(grad_output[i]) * to_float(weight[i]) * to_float(input[i]);
  }
};

// In grad_weight, the even and the odd elements of 32 are stored apart.
template <class T>
NIBBLE_INLINE void backward_row(const BackwardRows<T>& rows, size_t row, const NormContribution& contribution,
                                float* grad_weight) {
  const size_t features = rows.features;
  Lanes gradient[2];
  Lanes input[2];
  Lanes weight[2];
  Lanes grad_input[2];
  Lanes sum;
  size_t i = 0;
  for (; i + pair_lanes <= features; i += pair_lanes) {
    load_pairs(gradient[0], gradient[1], rows.grad_output + row + i);
    load_pairs(input[0], input[1], rows.input + row + i);
    load_pairs(weight[0], weight[1], rows.weight + i);
    load_pairs(grad_input[0], grad_input[1], rows.grad_input + row + i);
    for (size_t half = 0; half < 2; ++half) {
      float* const lane_sums = grad_weight + i + half * lanes;
      load(sum, lane_sums);
      contribution.add(gradient[half], input[half], weight[half], grad_input[half], sum);
      store(lane_sums, sum);
    }
    store_pairs(rows.grad_input + row + i, grad_input[0], grad_input[1]);
  }
  for (; i < features; ++i) {
    float result = to_float(rows.grad_input[row + i]);
    contribution.add(to_float(rows.grad_output[row + i]), to_float(rows.input[row + i]), to_float(rows.weight[i]),
                     result, grad_weight[i]);
    store(rows.grad_input[row + i], result);
  }
}

// Processes tokens [begin, end), at most token_grain.
template <class T>
NIBBLE_VECTORIZE void backward_rows(const BackwardRows<T>& rows, size_t begin, size_t end, float* grad_weight) {
  const size_t features = rows.features;
  const float count = static_cast<float>(features);
  NormContribution contributions[token_grain];
  for (size_t token = begin; token < end; ++token) {
    const size_t row = token * features;
    const float sum = row_sum(features, Products<T>{rows.grad_output + row, rows.weight, rows.input + row});
    contributions[token - begin] = NormContribution::of(rows.inverse_rms[token], sum, count);
  }
  for (size_t token = begin; token < end; ++token) {
    backward_row(rows, token * features, contributions[token - begin], grad_weight);
  }
}

// The rows whose sum is the gradient of a weight. They store the even and the odd elements of 32 apart.
struct PartialSums {
  const float* rows;
  size_t count, features;
  bool continues;
};

// Adds the sum of the rows to columns [begin, end) of a gradient, where begin is a multiple of 32.
NIBBLE_VECTORIZE void add_rows(const PartialSums& sums, size_t begin, size_t end, float* grad_weight) {
  const size_t features = sums.features;
  const size_t whole = features / pair_lanes * pair_lanes;
  Lanes before[2];
  Lanes sum[2];
  Lanes value;
  size_t i = begin;
  for (; i < std::min(end, whole); i += pair_lanes) {
    load_pairs(before[0], before[1], grad_weight + i);
    for (size_t half = 0; half < 2; ++half) {
      sum[half] = sums.continues ? before[half] : Lanes{};
      for (size_t row = 0; row < sums.count; ++row) {
        load(value, sums.rows + row * features + i + half * lanes);
        sum[half] += value;
      }
      if (!sums.continues) sum[half] += before[half];
    }
    store_pairs(grad_weight + i, sum[0], sum[1]);
  }
  for (; i < end; ++i) {
    float total = sums.continues ? grad_weight[i] : 0;
    for (size_t row = 0; row < sums.count; ++row) total += sums.rows[row * features + i];
    grad_weight[i] = sums.continues ? total : grad_weight[i] + total;
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
  check_matrix(problem.workspace, DType::f32, rms_norm_workspace_rows, width);
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
    parallel_for(static_cast<size_t>(tokens), token_grain,
                 [&](size_t begin, size_t end) { forward_rows(rows, begin, end); });
  });
}

void rms_norm_backward(const RmsNormBackward& problem) {
  const DType dtype = problem.grad_output.dtype();
  const int64_t tokens = problem.grad_output.rows();
  const int64_t width = problem.grad_output.cols();
  float* partial_sums = problem.workspace.as<float>();  // [rms_norm_workspace_rows, features]
  const size_t features = static_cast<size_t>(width);
  const size_t count = static_cast<size_t>(tokens);
  const size_t chunk = div_ceil<size_t>(count, rms_norm_workspace_rows);
  const size_t chunks = count == 0 ? 0 : div_ceil(count, chunk);
  with_storage_type(dtype, [&]<class T>(T) {
    const BackwardRows<T> rows{problem.grad_output.as<T>(),     problem.input.as<T>(),      problem.weight.as<T>(),
                               problem.inverse_rms.as<float>(), problem.grad_input.as<T>(), features};
    parallel_for(chunks, 1, [&](size_t first, size_t last) {
      for (size_t i = first; i < last; ++i) {
        float* const sums = partial_sums + i * features;
        std::fill_n(sums, features, 0.0f);
        const size_t stop = std::min(count, (i + 1) * chunk);
        for (size_t token = i * chunk; token < stop; token += token_grain) {
          backward_rows(rows, token, std::min(stop, token + token_grain), sums);
        }
      }
    });
  });
  float* grad_weight = problem.grad_weight.as<float>();
  constexpr size_t column_grain = 512;
  const PartialSums sums{partial_sums, chunks, features, problem.continues};
  parallel_for(features, column_grain, [=](size_t begin, size_t end) { add_rows(sums, begin, end, grad_weight); });
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
