#include "model/ops/swiglu.h"

#include "dist/profile.h"
#include "dist/thread_pool.h"
#include "dist/vectorize.h"
#include "model/ops/storage.h"
#include "model/ops/vector_math.h"

namespace nibble {
namespace {

constexpr size_t token_grain = 8;

template <class T>
NIBBLE_VECTORIZE void forward_row(const T* __restrict gate, const T* __restrict up, T* __restrict output,
                                  size_t features) {
  for (size_t i = 0; i < features; ++i) {
    const float x = to_float(gate[i]);
    store(output[i], x * sigmoid_f32(x) * to_float(up[i]));
  }
}

// d silu(x) / dx = sigmoid(x) * (1 + x * (1 - sigmoid(x)))
template <class T>
NIBBLE_VECTORIZE void backward_row(const T* __restrict grad_output, const T* __restrict gate, const T* __restrict up,
                                   T* __restrict grad_gate, T* __restrict grad_up, size_t features) {
  for (size_t i = 0; i < features; ++i) {
    const float x = to_float(gate[i]);
    const float gradient = to_float(grad_output[i]);
    const float sigmoid = sigmoid_f32(x);
    store(grad_up[i], gradient * (x * sigmoid));
    store(grad_gate[i], gradient * to_float(up[i]) * (sigmoid * (1.0f + x * (1.0f - sigmoid))));
  }
}

}  // namespace

namespace cpu {

static void swiglu_forward(const SwigluForward& problem) {
  const int64_t tokens = problem.output.rows();
  const int64_t width = problem.output.cols();
  check_matrix(problem.gate_up, problem.output.dtype(), tokens, 2 * width);
  with_storage_type(problem.output.dtype(), [&]<class T>(T) {
    const size_t features = static_cast<size_t>(width);
    const T* gate_up = problem.gate_up.as<T>();
    T* output = problem.output.as<T>();
    parallel_for(static_cast<size_t>(tokens), token_grain, [=](size_t begin, size_t end) {
      for (size_t token = begin; token < end; ++token) {
        const T* gate = gate_up + token * 2 * features;
        forward_row(gate, gate + features, output + token * features, features);
      }
    });
  });
}

static void swiglu_backward(const SwigluBackward& problem) {
  const int64_t tokens = problem.grad_output.rows();
  const int64_t width = problem.grad_output.cols();
  check_matrix(problem.gate_up, problem.grad_output.dtype(), tokens, 2 * width);
  check_matrix(problem.grad_gate_up, problem.grad_output.dtype(), tokens, 2 * width);
  with_storage_type(problem.grad_output.dtype(), [&]<class T>(T) {
    const size_t features = static_cast<size_t>(width);
    const T* grad_output = problem.grad_output.as<T>();
    const T* gate_up = problem.gate_up.as<T>();
    T* grad_gate_up = problem.grad_gate_up.as<T>();
    parallel_for(static_cast<size_t>(tokens), token_grain, [=](size_t begin, size_t end) {
      for (size_t token = begin; token < end; ++token) {
        const T* gate = gate_up + token * 2 * features;
        T* grad_gate = grad_gate_up + token * 2 * features;
        backward_row(grad_output + token * features, gate, gate + features, grad_gate, grad_gate + features, features);
      }
    });
  });
}

}  // namespace cpu

void swiglu_forward(const SwigluForward& problem) {
  const ProfileScope scope(OperatorFamily::activation, "swiglu_forward");
  NIBBLE_DISPATCH(problem.output.device(), swiglu_forward, problem);
}

void swiglu_backward(const SwigluBackward& problem) {
  const ProfileScope scope(OperatorFamily::activation, "swiglu_backward");
  NIBBLE_DISPATCH(problem.grad_output.device(), swiglu_backward, problem);
}

}  // namespace nibble
