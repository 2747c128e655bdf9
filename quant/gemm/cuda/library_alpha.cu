#include "quant/gemm/cuda/library_alpha.h"

#include "dist/device/cuda_device.h"
#include "dist/device/launch.cuh"
#include "quant/format/output_scale.h"

namespace nibble::cuda {
namespace {

struct Scalars {
  float* alpha;
  float* zero;
  float* one;
};

__global__ void constants_kernel(Scalars scalars) {
  *scalars.zero = 0.0F;
  *scalars.one = 1.0F;
}

// Allocates memory that is never freed: at the end of the process the driver may be gone first.
Scalars make_scalars() {
  auto* const memory = static_cast<float*>(allocate(512));
  if (memory == nullptr) {
    throw Error(ExitCode::out_of_memory, "no GPU memory for the scalars of GEMMs", out_of_memory_remedy);
  }
  const Scalars scalars{memory, memory + 32, memory + 64};
  launch("constants of gemms", constants_kernel, {dim3(1), dim3(1)}, scalars);
  return scalars;
}

const Scalars& scalars() {
  static const Scalars of_process = make_scalars();
  return of_process;
}

struct AlphaProblem {
  const float* g_a;  // null: 1
  const float* g_b;
  int power;
  float* alpha;
};
__global__ void alpha_kernel(AlphaProblem problem) {
  const float g_a = problem.g_a != nullptr ? *problem.g_a : 1.0F;
  const float g_b = problem.g_b != nullptr ? *problem.g_b : 1.0F;
  *problem.alpha = static_cast<float>(output_scale(g_a, g_b, problem.power));
}

const float* scale_of(const QuantizedTensor& tensor) {
  return is_quantized(tensor.format) ? tensor.tensor_scale.as<float>() : nullptr;
}

}  // namespace

const float* library_alpha(const QuantizedTensor& a, const QuantizedTensor& b) {
  const int power = -(a.rotation_bits + b.rotation_bits) / 2;
  if (power == 0 && !is_quantized(a.format) && !is_quantized(b.format)) return scalars().one;
  const AlphaProblem problem{scale_of(a), scale_of(b), power, scalars().alpha};
  launch("alpha of a gemm", alpha_kernel, {dim3(1), dim3(1)}, problem);
  return problem.alpha;
}

const float* library_beta(bool accumulate) {
  return accumulate ? scalars().one : scalars().zero;
}

void allocate_library_scalars() {
  scalars();
}

}  // namespace nibble::cuda
