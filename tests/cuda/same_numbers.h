// Comparison of results that may be NaN: which NaN an operation gives differs between processors.
#pragma once

#include "cuda/device_fixture.h"

namespace nibble {

// Compares the bits of f32 or bf16 numbers, but any NaN equals a NaN.
inline ::testing::AssertionResult same_numbers(const TwinTensor& twin) {
  const HostCopy actual(twin.gpu());
  const auto number_at = [](const Tensor& tensor, int64_t i) {
    return tensor.dtype() == DType::f32 ? tensor.as<float>()[i] : to_float(tensor.as<BFloat16>()[i]);
  };
  for (int64_t i = 0; i < twin.cpu().elements(); ++i) {
    const float expected = number_at(twin.cpu(), i);
    const float found = number_at(actual.tensor(), i);
    if (is_nan(expected) ? is_nan(found) : bits_of(expected) == bits_of(found)) continue;
    return ::testing::AssertionFailure() << "element " << i << ": expected " << expected << ", got " << found;
  }
  return ::testing::AssertionSuccess();
}

}  // namespace nibble
