// Identifies the micro-batch that a call computes; it keys all rounding noise.
#pragma once

#include <cstdint>

namespace nibble {

struct StepContext {
  uint64_t seed = 0;
  uint32_t step = 0;
  uint32_t micro_batch = 0;  // index in the global list of micro-batches of the step
};

// Rows of an activation that are one operand: they share a tensor scale, and their rounding noise is that of the
// micro-batch. In inference every token is a segment of its own, and its position in the text is the micro-batch.
struct OperandSegment {
  uint32_t micro_batch = 0;
  int64_t first_row = 0;
  int64_t rows = 0;
};

}  // namespace nibble
