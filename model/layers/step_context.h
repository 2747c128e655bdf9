// Identifies the micro-batch that a call computes; it keys all rounding noise.
#pragma once

#include <cstdint>

namespace nibble {

struct StepContext {
  uint64_t seed = 0;
  uint32_t step = 0;
  uint32_t micro_batch = 0;  // index in the global list of micro-batches of the step
};

}  // namespace nibble
