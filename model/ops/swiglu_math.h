// The gradients of silu(gate) * up, for the CPU's loops and for kernels. The two have sigmoid functions of different
// names, so the sigmoid is an argument.
#pragma once

#include <cmath>

#include "quant/format/host_device.h"

namespace nibble {

struct GatedGradients {
  float gate, up;
};

// Uses d silu(x) / dx = sigmoid(x) + silu(x) * (1 - sigmoid(x)). `sigmoid` is the sigmoid of the gate.
NIBBLE_HOST_DEVICE GatedGradients gated_gradients(float gradient, float gate, float up, float sigmoid) {
  const float silu = gate * sigmoid;
  return {gradient * up * std::fma(silu, 1.0f - sigmoid, sigmoid), gradient * silu};
}

}  // namespace nibble
