// The contribution of one token to the gradients of the root-mean-square norm, for the CPU's vectors and for kernels.
#pragma once

#include "quant/format/host_device.h"

namespace nibble {

// The factors of a token; `along` removes the part of the gradient along the row.
struct NormContribution {
  float inverse_rms;
  float along;

  // `sum` is the sum of grad_output * weight * input over the row's `features`.
  static NIBBLE_HOST_DEVICE NormContribution of(float inverse_rms, float sum, float features) {
    return {inverse_rms, inverse_rms * inverse_rms * inverse_rms * (sum / features)};
  }

  template <class Value>
  NIBBLE_HOST_DEVICE void add(const Value& grad_output, const Value& input, const Value& weight, Value& grad_input,
                              Value& grad_weight) const {
    const Value gradient = grad_output * inverse_rms;
    grad_weight += gradient * input;
    grad_input += gradient * weight - input * along;
  }
};

}  // namespace nibble
