// Helpers that the operators' kernels share: writing either storage type, choosing a kernel by dtype, checking shapes.
#pragma once

#include <cstddef>

#include "quant/format/codec.h"
#include "quant/tensor/tensor.h"

namespace nibble {

NIBBLE_HOST_DEVICE void store(float& to, float value) {
  to = value;
}
NIBBLE_HOST_DEVICE void store(BFloat16& to, float value) {
  to = bf16_nearest(value);
}

// Calls function(T{}) with the storage type of an activation.
template <class Function>
void with_storage_type(DType dtype, Function&& function) {
  NIBBLE_CHECK(dtype == DType::f32 || dtype == DType::bf16, "activations are fp32 or bf16");
  if (dtype == DType::f32) {
    function(float{});
  } else {
    function(BFloat16{});
  }
}

inline void check_matrix(const Tensor& tensor, DType dtype, int64_t rows, int64_t cols) {
  NIBBLE_CHECK(tensor.rank() >= 1 && tensor.dtype() == dtype, "operand missing or of another dtype");
  NIBBLE_CHECK(tensor.cols() == cols && tensor.elements() == rows * cols, "shapes do not agree");
}

inline void check_vector(const Tensor& tensor, DType dtype, int64_t elements) {
  NIBBLE_CHECK(tensor.rank() >= 1 && tensor.dtype() == dtype, "operand missing or of another dtype");
  NIBBLE_CHECK(tensor.elements() == elements, "shapes do not agree");
}

}  // namespace nibble
