// Layouts of vectors, some of which decay, for tests of the weights' code.
#pragma once

#include <string>
#include <vector>

#include "dist/zero/layout.h"

namespace nibble {

struct DecayingRange {
  uint64_t offset = 0;
  uint64_t count = 0;
  bool decay = false;
};

inline Layout layout_of(const std::vector<DecayingRange>& ranges, uint64_t elements) {
  std::vector<TensorLayout> tensors;
  for (const DecayingRange& range : ranges) {
    const auto number = static_cast<uint32_t>(tensors.size());
    tensors.push_back({.name = std::to_string(number),
                       .shape = {static_cast<int64_t>(range.count)},
                       .tensor_id = number,
                       .offset = range.offset,
                       .count = range.count,
                       .decay = range.decay});
  }
  return {{{.name = "all", .range = {0, elements}}}, std::move(tensors)};
}

}  // namespace nibble
