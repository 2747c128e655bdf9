// The factor alpha of a GEMM's result (quant/gemm/gemm.h): the CPU and CUDA kernels share this one definition.
#pragma once

#include <cmath>

#include "quant/format/host_device.h"

namespace nibble {

// Returns g_a g_b rounded to 24 bits, times 2^power. It is a double, whose exponent range holds it: two tensor scales
// of 1e-25 must not make a zero.
NIBBLE_HOST_DEVICE double output_scale(float g_a, float g_b, int power) {
  int exponent = 0;
  const double fraction = std::frexp(static_cast<double>(g_a) * static_cast<double>(g_b), &exponent);
  return std::ldexp(static_cast<double>(static_cast<float>(fraction)), exponent + power);
}

// Returns value * alpha, rounded once: the product of two numbers of 24 bits is exact in double. Where alpha is a
// normal FP32 number, this is the FP32 product.
NIBBLE_HOST_DEVICE float scaled_once(float value, double alpha) {
  return static_cast<float>(static_cast<double>(value) * alpha);
}

}  // namespace nibble
