// Scalars that products of libraries read on the device. Internal to quant; builds with CUDA only.
#pragma once

#include "quant/tensor/quantized_tensor.h"

namespace nibble::cuda {

// g_a g_b 2^-((bits of rotation of a and b)/2) in FP32, g being the tensor scales: put there by a kernel on the compute
// stream, for the product that comes next on it.
const float* library_alpha(const QuantizedTensor& a, const QuantizedTensor& b);

// 0, or 1 to accumulate.
const float* library_beta(bool accumulate);

// Takes the memory for them, so that no product has to.
void allocate_library_scalars();

}  // namespace nibble::cuda
