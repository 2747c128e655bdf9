// The range of a parameter in the flat buffers of weights and gradients.
#pragma once

#include <cstdint>

namespace nibble {

// One parameter of the flat buffers. Elements outside every segment are never touched, so the gaps stay zero.
struct ParameterSegment {
  uint64_t offset = 0;     // a multiple of 8
  uint64_t count = 0;      // elements
  uint32_t tensor_id = 0;  // keys this tensor's rounding noise
  bool decay = false;      // weight decay applies
};

}  // namespace nibble
