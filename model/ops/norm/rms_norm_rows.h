// Root-mean-square normalisation of rows on the CPU, forward and backward, for NIBBLE_VECTORIZE functions of the
// operators that normalise.
#pragma once

#include <cmath>

#include "dist/base/vectorize.h"
#include "model/ops/norm/rms_norm_math.h"
#include "model/ops/row/map_row.h"
#include "model/ops/row/row_math.h"
#include "model/ops/row/storage.h"

namespace nibble {

constexpr size_t rows_together = 16;  // of backward, at most

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

// Normalises rows [begin, end).
template <class T>
NIBBLE_INLINE void normalise_rows(const ForwardRows<T>& rows, size_t begin, size_t end) {
  const size_t features = rows.features;
  const float count = static_cast<float>(features);
  for (size_t row = begin; row < end; ++row) {
    rows.inverse_rms[row] = row_sum(features, Squares<T>{rows.input + row * features});
  }
  for (size_t row = begin; row < end; ++row) {
    rows.inverse_rms[row] = 1.0f / std::sqrt(rows.inverse_rms[row] / count + rows.epsilon);
  }
  for (size_t row = begin; row < end; ++row) {
    const size_t first = row * features;
    map_row(features, rows.output + first, Scaled{rows.inverse_rms[row]}, rows.input + first, rows.weight);
  }
}

template <class T>
struct BackwardRows {
  const T* grad_output;
  const T* input;
  const T* weight;
  const float* inverse_rms;
  T* grad_input;  // may be grad_output
  size_t features;
  // f32 [rows, features], or one row for all if the stride is 0: the terms of the weight's gradient are added to it.
  // The even and the odd ones of 32 elements stand apart, as in RangeSums.
  float* grad_weight;
  size_t grad_weight_stride;
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

// Adds to grad_input, or overwrites it.
template <bool adds, class T>
NIBBLE_INLINE void backward_row(const BackwardRows<T>& rows, size_t row, const NormContribution& contribution) {
  const size_t features = rows.features;
  const T* const grad_outputs = rows.grad_output + row * features;
  const T* const inputs = rows.input + row * features;
  T* const grad_inputs = rows.grad_input + row * features;
  float* const grad_weight = rows.grad_weight + row * rows.grad_weight_stride;
  Lanes gradient[2];
  Lanes input[2];
  Lanes weight[2];
  Lanes grad_input[2];
  Lanes sum;
  size_t i = 0;
  for (; i + pair_lanes <= features; i += pair_lanes) {
    load_pairs(gradient[0], gradient[1], grad_outputs + i);
    load_pairs(input[0], input[1], inputs + i);
    load_pairs(weight[0], weight[1], rows.weight + i);
    if constexpr (adds) {
      load_pairs(grad_input[0], grad_input[1], grad_inputs + i);
    } else {
      grad_input[0] = grad_input[1] = Lanes{};
    }
    for (size_t half = 0; half < 2; ++half) {
      float* const lane_sums = grad_weight + i + half * lanes;
      load(sum, lane_sums);
      contribution.add(gradient[half], input[half], weight[half], grad_input[half], sum);
      store(lane_sums, sum);
    }
    store_pairs(grad_inputs + i, grad_input[0], grad_input[1]);
  }
  for (; i < features; ++i) {
    float result = adds ? to_float(grad_inputs[i]) : 0;
    contribution.add(to_float(grad_outputs[i]), to_float(inputs[i]), to_float(rows.weight[i]), result, grad_weight[i]);
    store(grad_inputs[i], result);
  }
}

// Processes rows [begin, end), at most rows_together.
template <bool adds, class T>
NIBBLE_INLINE void backward_rows(const BackwardRows<T>& rows, size_t begin, size_t end) {
  const size_t features = rows.features;
  const float count = static_cast<float>(features);
  NormContribution contributions[rows_together];
  for (size_t row = begin; row < end; ++row) {
    const size_t first = row * features;
    const float sum = row_sum(features, Products<T>{rows.grad_output + first, rows.weight, rows.input + first});
    contributions[row - begin] = NormContribution::of(rows.inverse_rms[row], sum, count);
  }
  for (size_t row = begin; row < end; ++row) backward_row<adds>(rows, row, contributions[row - begin]);
}

}  // namespace nibble
