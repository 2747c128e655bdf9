// Contents of large tensors on the device, for tests and measurements.
#pragma once

#include "quant/format/codec.h"
#include "quant/tensor/tensor_copy.h"

namespace nibble {

// Fills deterministic numbers of an activation's size, made on the CPU.
inline void fill(const Tensor& tensor) {
  const HostStage stage(tensor);
  const auto values = stage.as<BFloat16>();
  uint32_t state = 12345;
  for (BFloat16& value : values) {
    state = state * 1664525u + 1013904223u;
    value = bf16_nearest(static_cast<float>(static_cast<int32_t>(state >> 8) - (1 << 23)) * 0x1p-23f);
  }
  stage.finish();
}

}  // namespace nibble
