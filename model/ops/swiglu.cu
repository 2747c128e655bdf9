#include "model/ops/swiglu.h"

#include <algorithm>

#include "dist/device/launch.cuh"
#include "model/ops/row/device_math.cuh"
#include "model/ops/row/storage.h"
#include "model/ops/swiglu_math.h"
#include "quant/format/packs.cuh"

namespace nibble::cuda {
namespace {

// Token t has gate and up, and their gradients, at t * 2 * features.
template <class T>
struct Gated {
  const T* gate_up;
  T* output;
  int64_t features;
};

// blockIdx.x is the token.
template <class T, int width>
__global__ void forward_kernel(Gated<T> problem) {
  const int64_t column = (static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x) * width;
  if (column >= problem.features) return;
  const T* const gate_up = problem.gate_up + blockIdx.x * 2 * problem.features + column;
  const auto gate = load_floats<width>(gate_up);
  const auto up = load_floats<width>(gate_up + problem.features);
  Pack<float, width> result;
#pragma unroll
  for (int i = 0; i < width; ++i) result.value[i] = cuda::silu_f32(gate.value[i]) * up.value[i];
  store_floats(problem.output + blockIdx.x * problem.features + column, result);
}

template <class T>
struct GatedBackward {
  const T* grad_output;
  const T* gate_up;
  T* grad_gate_up;
  int64_t features;
};

template <class T, int width>
__global__ void backward_kernel(GatedBackward<T> problem) {
  const int64_t column = (static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x) * width;
  if (column >= problem.features) return;
  const int64_t offset = blockIdx.x * 2 * problem.features + column;
  const auto gradient = load_floats<width>(problem.grad_output + blockIdx.x * problem.features + column);
  auto gate = load_floats<width>(problem.gate_up + offset);
  auto up = load_floats<width>(problem.gate_up + offset + problem.features);
#pragma unroll
  for (int i = 0; i < width; ++i) {
    const GatedGradients gradients =
        gated_gradients(gradient.value[i], gate.value[i], up.value[i], cuda::sigmoid_f32(gate.value[i]));
    gate.value[i] = gradients.gate;
    up.value[i] = gradients.up;
  }
  store_floats(problem.grad_gate_up + offset, gate);
  store_floats(problem.grad_gate_up + offset + problem.features, up);
}

// Each thread computes one pack of a token.
LaunchShape tokens_by_packs(int64_t tokens, int64_t packs) {
  const int64_t threads = std::min<int64_t>(256, round_up<int64_t>(packs, warp_lanes));
  return {dim3(narrow<unsigned>(tokens), narrow<unsigned>(div_ceil(packs, threads))), dim3(narrow<unsigned>(threads))};
}

}  // namespace

void swiglu_forward(const SwigluForward& problem) {
  const int64_t tokens = problem.output.rows();
  const int64_t width = problem.output.cols();
  with_storage_type(problem.output.dtype(), [&]<class T>(T) {
    const Gated<T> gated{problem.gate_up.as<T>(), problem.output.as<T>(), width};
    with_pack<widest_pack<T>>(
        in_packs(widest_pack<T>, sizeof(T), width, {gated.gate_up, gated.output}), [&](auto pack) {
          launch("swiglu_forward", forward_kernel<T, pack()>, tokens_by_packs(tokens, width / pack()), gated);
        });
  });
}

void swiglu_backward(const SwigluBackward& problem) {
  const int64_t tokens = problem.grad_output.rows();
  const int64_t width = problem.grad_output.cols();
  with_storage_type(problem.grad_output.dtype(), [&]<class T>(T) {
    const GatedBackward<T> gated{problem.grad_output.as<T>(), problem.gate_up.as<T>(), problem.grad_gate_up.as<T>(),
                                 width};
    const bool fits =
        in_packs(widest_pack<T>, sizeof(T), width, {gated.grad_output, gated.gate_up, gated.grad_gate_up});
    with_pack<widest_pack<T>>(fits, [&](auto pack) {
      launch("swiglu_backward", backward_kernel<T, pack()>, tokens_by_packs(tokens, width / pack()), gated);
    });
  });
}

}  // namespace nibble::cuda
