// The factor and the rounding of dequantize(), shared by all devices.
#pragma once

#include <cmath>

#include "quant/format/codec.h"
#include "quant/format/host_device.h"

namespace nibble {

// Returns 2^(-bits/2). A library function would not fix the last digit.
inline double inverse_root_of_power(int bits) {
  return std::ldexp(bits % 2 == 0 ? 1.0 : 0.70710678118654752440, -(bits / 2));
}

NIBBLE_HOST_DEVICE void round_once(double exact, float& output) {
  output = static_cast<float>(exact);
}
NIBBLE_HOST_DEVICE void round_once(double exact, BFloat16& output) {
  output = bf16_nearest_once(exact);
}

}  // namespace nibble
