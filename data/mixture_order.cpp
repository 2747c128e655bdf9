#include "data/mixture_order.h"

#include <array>
#include <bit>
#include <cmath>

#include "dist/base/error.h"
#include "dist/base/hash.h"

namespace nibble {
namespace {

constexpr uint32_t block_bits = 16;

uint64_t reversed_bits(uint64_t value) {
  uint64_t result = 0;
  for (uint32_t bit = 0; bit < 64; ++bit) result |= ((value >> bit) & 1U) << (63 - bit);
  return result;
}

}  // namespace

MixtureOrder::MixtureOrder(std::span<const double> weights, uint64_t seed) : seed_(seed) {
  double sum = 0;
  for (const double weight : weights) {
    NIBBLE_CHECK(weight > 0, "a part without weight");
    sum += weight;
  }
  double end = 0;
  for (const double weight : weights) {
    shares_.push_back(weight / sum);
    end += weight;
    if (shares_.size() < weights.size()) ends_.push_back(static_cast<uint64_t>(std::ldexp(end / sum, 64)));
  }
}

uint64_t MixtureOrder::slot_of(uint64_t sample) const {
  uint64_t slot = sample;
  for (uint64_t bit = 0; bit < block_bits; ++bit) {
    const std::array<uint64_t, 3> key = {seed_, bit, sample >> (bit + 1)};
    slot ^= (hash64(std::as_bytes(std::span(key))) & 1U) << bit;
  }
  return slot;
}

size_t MixtureOrder::part_of(uint64_t sample) const {
  if (ends_.empty()) return 0;
  const uint64_t point = reversed_bits(slot_of(sample));
  size_t part = 0;
  while (part < ends_.size() && point >= ends_[part]) ++part;
  return part;
}

// Returns how many of the samples before `sample` come from parts up to `part`. These samples are runs of 2^b, one for
// each bit of `sample`. The points of a run are the sums of `first`, which is below 2^(64 - b), and all multiples of
// that.
uint64_t MixtureOrder::below(size_t part, uint64_t sample) const {
  if (part == ends_.size()) return sample;
  const uint64_t end = ends_[part];
  uint64_t total = 0;
  for (uint64_t begin = 0; begin < sample;) {
    const auto bits = static_cast<uint32_t>(std::bit_width(sample - begin)) - 1;
    const uint64_t run = uint64_t{1} << bits;
    const uint64_t first = reversed_bits(slot_of(begin) & ~(run - 1));
    if (first < end) total += bits == 0 ? 1 : ((end - first - 1) >> (64 - bits)) + 1;
    begin += run;
  }
  return total;
}

uint64_t MixtureOrder::taken(size_t part, uint64_t sample) const {
  return below(part, sample) - (part == 0 ? 0 : below(part - 1, sample));
}

}  // namespace nibble
