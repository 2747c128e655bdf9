#include "model/ops/swiglu.h"

#include <algorithm>

#include "dist/base/vectorize.h"
#include "dist/device/dispatch.h"
#include "dist/device/profile.h"
#include "dist/device/thread_pool.h"
#include "model/ops/row/map_row.h"
#include "model/ops/row/storage.h"
#include "model/ops/row/vector_math.h"
#include "model/ops/swiglu_math.h"

namespace nibble {
namespace {

constexpr size_t token_grain = 8;
constexpr size_t piece = 128;  // elements of a row; the same elements of the next row are prefetched meanwhile

struct Gated {
  NIBBLE_INLINE float operator()(float gate, float up) const { return silu_f32(gate) * up; }
};

// Token t has gate and up at gate_up + t * 2 * features.
template <class T>
NIBBLE_VECTORIZE void forward_rows(const T* gate_up, T* output, size_t features, size_t begin, size_t end) {
  for (size_t token = begin; token < end; ++token) {
    const T* const gate = gate_up + token * 2 * features;
    const size_t to_next = token + 1 < end ? 2 * features : 0;
    for (size_t i = 0; i < features; i += piece) {
      const size_t count = std::min(piece, features - i);
      prefetch(gate + to_next + i, count);
      prefetch(gate + to_next + features + i, count);
      map_row(count, output + token * features + i, Gated{}, gate + i, gate + features + i);
    }
  }
}

struct GradGated {
  NIBBLE_INLINE void operator()(float& grad_gate, float& grad_up, float gradient, float gate, float up) const {
    const GatedGradients gradients = gated_gradients(gradient, gate, up, sigmoid_f32(gate));
    grad_gate = gradients.gate;
    grad_up = gradients.up;
  }
};

template <class T>
struct BackwardRows {
  const T* grad_output;
  const T* gate_up;
  T* grad_gate_up;
  size_t features;
};

template <class T>
NIBBLE_VECTORIZE void backward_rows(const BackwardRows<T>& rows, size_t begin, size_t end) {
  const size_t features = rows.features;
  for (size_t token = begin; token < end; ++token) {
    const T* const gradient = rows.grad_output + token * features;
    const T* const gate = rows.gate_up + token * 2 * features;
    T* const grad_gate = rows.grad_gate_up + token * 2 * features;
    const size_t next = token + 1 < end ? features : 0;
    for (size_t i = 0; i < features; i += piece) {
      const size_t count = std::min(piece, features - i);
      prefetch(gradient + next + i, count);
      prefetch(gate + 2 * next + i, count);
      prefetch(gate + 2 * next + features + i, count);
      map_row_to_two(count, grad_gate + i, grad_gate + features + i, GradGated{}, gradient + i, gate + i,
                     gate + features + i);
    }
  }
}

}  // namespace

namespace cpu {

void swiglu_forward(const SwigluForward& problem) {
  const int64_t tokens = problem.output.rows();
  const int64_t width = problem.output.cols();
  with_storage_type(problem.output.dtype(), [&]<class T>(T) {
    const size_t features = static_cast<size_t>(width);
    const T* gate_up = problem.gate_up.as<T>();
    T* output = problem.output.as<T>();
    parallel_for(static_cast<size_t>(tokens), token_grain,
                 [=](size_t begin, size_t end) { forward_rows(gate_up, output, features, begin, end); });
  });
}

void swiglu_backward(const SwigluBackward& problem) {
  const int64_t tokens = problem.grad_output.rows();
  const int64_t width = problem.grad_output.cols();
  with_storage_type(problem.grad_output.dtype(), [&]<class T>(T) {
    const BackwardRows<T> rows{problem.grad_output.as<T>(), problem.gate_up.as<T>(), problem.grad_gate_up.as<T>(),
                               static_cast<size_t>(width)};
    parallel_for(static_cast<size_t>(tokens), token_grain,
                 [&](size_t begin, size_t end) { backward_rows(rows, begin, end); });
  });
}

}  // namespace cpu

void swiglu_forward(const SwigluForward& problem) {
  const ProfileScope scope(OperatorFamily::activation, "swiglu_forward");
  const Tensor& output = problem.output;
  check_matrix(problem.gate_up, output.dtype(), output.rows(), 2 * output.cols());
  NIBBLE_DISPATCH(problem.output.device(), swiglu_forward, problem);
}

void swiglu_backward(const SwigluBackward& problem) {
  const ProfileScope scope(OperatorFamily::activation, "swiglu_backward");
  const Tensor& gradient = problem.grad_output;
  for (const Tensor& gated : {problem.gate_up, problem.grad_gate_up}) {
    check_matrix(gated, gradient.dtype(), gradient.rows(), 2 * gradient.cols());
  }
  NIBBLE_DISPATCH(problem.grad_output.device(), swiglu_backward, problem);
}

}  // namespace nibble
