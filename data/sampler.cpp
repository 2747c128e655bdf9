#include "data/sampler.h"

#include <array>
#include <bit>

#include "dist/base/error.h"
#include "dist/base/hash.h"
#include "dist/base/little_endian.h"

namespace nibble {
namespace {

__extension__ using uint128 = unsigned __int128;

constexpr uint64_t rounds = 8;

uint64_t first_of_part(uint64_t n, uint64_t count, uint64_t index) {
  return static_cast<uint64_t>((uint128{index} * n + count - 1) / count);
}

}  // namespace

uint64_t spread_window(uint64_t n, uint64_t count, uint64_t index) {
  NIBBLE_CHECK(index < count && count <= n, "one window out of each part");
  constexpr uint64_t golden_ratio = 0x9E3779B97F4A7C15;  // (sqrt(5) - 1)/2 in units of 2^-64
  const uint64_t fraction = (uint64_t{1} << 63U) + index * golden_ratio;
  const uint64_t first = first_of_part(n, count, index);
  const uint64_t length = first_of_part(n, count, index + 1) - first;
  return first + static_cast<uint64_t>((uint128{fraction} * length) >> 64U);
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
