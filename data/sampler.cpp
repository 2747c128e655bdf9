#include "data/sampler.h"

#include <array>
#include <bit>

#include "dist/base/error.h"
#include "dist/base/hash.h"
#include "dist/base/little_endian.h"

namespace nibble {
namespace {
constexpr uint64_t rounds = 8;
}

Sampler::Sampler(uint64_t windows, uint64_t seed, bool shuffle) : windows_(windows), seed_(seed), shuffle_(shuffle) {
  NIBBLE_CHECK(windows >= 1, "a data set without windows");
  const auto bits = static_cast<uint32_t>(std::bit_width(windows - 1));
  half_bits_ = bits <= 2 ? 1 : (bits + 1) / 2;
}

uint64_t Sampler::permute(uint64_t epoch, uint64_t index) const {
  const uint64_t mask = (1ULL << half_bits_) - 1;
  uint64_t left = index >> half_bits_;
  uint64_t right = index & mask;
  for (uint64_t round = 0; round < rounds; ++round) {
    const std::array<uint64_t, 4> key = {seed_, epoch, round, right};
    const uint64_t mixed = hash64(std::as_bytes(std::span(key)));
    const uint64_t next = left ^ (mixed & mask);
    left = right;
    right = next;
  }
  return (left << half_bits_) | right;
}

uint64_t Sampler::window(uint64_t sample) const {
  uint64_t index = sample % windows_;
  if (!shuffle_) return index;
  // The network permutes the whole domain, so the walk returns to the range of windows in which it started.
  do {
    index = permute(epoch(sample), index);
  } while (index >= windows_);
  return index;
}

}  // namespace nibble
