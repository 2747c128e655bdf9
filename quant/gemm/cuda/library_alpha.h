// The scalars that GEMMs of libraries read on the device. Internal to quant; only in builds with CUDA.
#pragma once

#include "quant/tensor/quantized_tensor.h"

namespace nibble::cuda {

// Returns g_a g_b 2^-((bits of rotation of a and b)/2) in FP32, g being the tensor scales. A kernel on the compute
// stream writes it, for the next GEMM on the stream.
const float* library_alpha(const QuantizedTensor& a, const QuantizedTensor& b);

// Returns 0, or 1 to accumulate.
const float* library_beta(bool accumulate);

// Allocates the scalars, so that no GEMM has to.
void allocate_library_scalars();

}  // namespace nibble::cuda
