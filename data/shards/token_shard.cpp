#include "data/shards/token_shard.h"

#include <algorithm>

#include "dist/base/error.h"

namespace nibble {

void find_starts_in_table(std::span<const uint64_t> document_ends, uint64_t first, std::span<int32_t> document_starts) {
  auto end = std::upper_bound(document_ends.begin(), document_ends.end(), first);
  int32_t start = 0;
  for (size_t i = 0; i < document_starts.size(); ++i) {
    if (end != document_ends.end() && *end == first + i) {
      start = narrow<int32_t>(i);
      ++end;
    }
    document_starts[i] = start;
  }
}

}  // namespace nibble
