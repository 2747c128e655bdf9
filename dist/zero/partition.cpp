#include "dist/zero/partition.h"

#include <algorithm>

#include "dist/base/error.h"

namespace nibble {

Partition::Partition(uint64_t elements, int ranks) {
  NIBBLE_CHECK(ranks >= 1, "a partition needs a rank");
  const uint64_t blocks = div_ceil(elements, block);
  const auto parts = static_cast<uint64_t>(ranks);
  offsets_.reserve(parts + 1);
  for (uint64_t rank = 0; rank <= parts; ++rank) {
    const uint64_t first_block = blocks / parts * rank + blocks % parts * rank / parts;
    offsets_.push_back(std::min(elements, first_block * block));
  }
}

std::vector<uint64_t> Partition::byte_offsets(uint64_t bytes_per_element) const {
  std::vector<uint64_t> bytes;
  bytes.reserve(offsets_.size());
  for (uint64_t offset : offsets_) bytes.push_back(checked_multiply(offset, bytes_per_element));
  return bytes;
}

}  // namespace nibble
