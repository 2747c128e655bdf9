// A vector in a layout, for tests that care where tensors lie and not what they are.
#pragma once

#include <string>

#include "dist/zero/layout.h"

namespace nibble {

inline TensorLayout vector_tensor(uint32_t id, uint64_t offset, uint64_t count, bool decay, size_t width = 2) {
  return {.name = std::to_string(id),
          .shape = {static_cast<int64_t>(count)},
          .tensor_id = id,
          .offset = offset,
          .count = count,
          .width = static_cast<uint8_t>(width),
          .decay = decay};
}

}  // namespace nibble
