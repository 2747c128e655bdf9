// Element by element, shapes and dtypes (f32 or bf16) all equal.
#pragma once

#include "quant/tensor/tensor.h"

namespace nibble {

// output = a + b, one rounding. The output may be a or b itself.
void add(const Tensor& a, const Tensor& b, const Tensor& output);

// Any dtype.
void fill_zero(const Tensor& tensor);

namespace cuda {
void add(const Tensor& a, const Tensor& b, const Tensor& output);
void fill_zero(const Tensor& tensor);
}  // namespace cuda

}  // namespace nibble
