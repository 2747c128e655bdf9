// Layouts of vectors, some of which decay, for tests of the weights' code.
#pragma once

#include <vector>

#include "dist/vector_tensor.h"

namespace nibble {

struct DecayingRange {
  uint64_t offset = 0;
  uint64_t count = 0;
  bool decay = false;
};

inline Layout layout_of(const std::vector<DecayingRange>& ranges, uint64_t elements) {
  std::vector<TensorLayout> tensors;
  for (const DecayingRange& range : ranges) {
    tensors.push_back(vector_tensor(static_cast<uint32_t>(tensors.size()), range.offset, range.count, range.decay));
  }
  return {{{.name = "all", .range = {0, elements}}}, std::move(tensors)};
}

}  // namespace nibble
