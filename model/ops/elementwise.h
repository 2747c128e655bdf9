// Element-wise operations on tensors of equal shape and dtype (f32 or bf16).
#pragma once

#include "dist/device/operator.h"
#include "quant/tensor/tensor.h"

namespace nibble {

// output = a + b, rounded once. The output may be a or b itself.
NIBBLE_OPERATOR(void add(const Tensor& a, const Tensor& b, const Tensor& output));

// Sets all elements to zero; any dtype.
NIBBLE_OPERATOR(void fill_zero(const Tensor& tensor));

}  // namespace nibble
