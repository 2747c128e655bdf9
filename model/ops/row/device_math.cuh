// exp, sigmoid and silu of model/ops/row/vector_math.h for kernels, with the same bits.
#pragma once

#include "model/ops/row/vector_math.h"

namespace nibble::cuda {

NIBBLE_HOST_DEVICE float exp_f32(float x) {
  return exp_f32_between(x, smallest_argument_of_exp, largest_argument_of_exp);
}

NIBBLE_HOST_DEVICE float sigmoid_f32(float x) {
  return 1.0f / (1.0f + cuda::exp_f32(-x));
}

NIBBLE_HOST_DEVICE float silu_f32(float x) {
  return x / (1.0f + cuda::exp_f32(-x));
}

}  // namespace nibble::cuda
