// Compares what two checkpoints hold, tensor by tensor, whatever the number of ranks that saved them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "trainer/checkpoint/checkpoint_content.h"

namespace nibble {

struct ArrayDifference {
  std::string name;        // "parameters/embedding.weight", "quantization/amax_history", or a number's, "skipped/total"
  std::string reason;      // why values cannot be compared: "only in the first", other shapes; else empty
  uint64_t values = 0;     // of each checkpoint
  uint64_t different = 0;  // how many have other bits
  double largest = 0;      // absolute difference; NaN if a value that differs is NaN
};

struct CheckpointDifference {
  uint64_t compared = 0;  // tensors of all arrays, replicated arrays and numbers
  std::vector<ArrayDifference> differing;
};

// Compares the values of all arrays by their bits, and the numbers; step, data and configuration are not looked at, nor
// is the group of numbers "best", which says what a run keeps. Holds `piece` values of each checkpoint in memory.
// Throws what load_array() throws. The files' hashes have been checked (open_checkpoint()).
CheckpointDifference compare_checkpoints(const CheckpointInfo& first, const CheckpointInfo& second,
                                         uint64_t piece = uint64_t{4} << 20);

}  // namespace nibble
