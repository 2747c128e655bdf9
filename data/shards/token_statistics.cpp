#include "data/shards/token_statistics.h"

#include <cmath>
#include <numbers>

namespace nibble {

void TokenStatistics::add(std::span<const int32_t> ids) {
  for (const int32_t id : ids) ++counts_[static_cast<size_t>(id)];
}

uint64_t TokenStatistics::total() const {
  uint64_t sum = 0;
  for (const uint64_t count : counts_) sum += count;
  return sum;
}

uint32_t TokenStatistics::used() const {
  uint32_t used = 0;
  for (const uint64_t count : counts_) used += count > 0 ? 1 : 0;
  return used;
}

double TokenStatistics::entropy_nats() const {
  const auto sum = static_cast<double>(total());
  double entropy = 0.0;
  for (const uint64_t count : counts_) {
    if (count == 0) continue;
    const double share = static_cast<double>(count) / sum;
    entropy -= share * std::log(share);
  }
  return entropy;
}

double TokenStatistics::entropy_bits() const {
  return entropy_nats() / std::numbers::ln2;
}

}  // namespace nibble
