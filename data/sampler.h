// The order in which the windows of a data set are read. Every epoch has a permutation that is a pure function of
// (seed, epoch) and is evaluated at one point, so sample k of a run is known without the samples before it.
//
// The permutation is a balanced Feistel network of 8 rounds over the smallest domain of 2^(2h) >= windows, h >= 1,
// applied repeatedly until the result is below `windows`. With x = left * 2^h + right, round r replaces (left, right)
// by (right, left ^ (F & (2^h - 1))), where F is the XXH3-64 of the four little-endian 64-bit integers seed, epoch, r,
// right.
#pragma once

#include <cstdint>

namespace nibble {

// Returns one window out of part [index n/count, (index + 1) n/count) of n windows; requires index < count <= n. Of the
// whole numbers in that part, first to last, it is first + floor(f (last - first + 1)), where f is the part of
// 1/2 + index (sqrt(5) - 1)/2 after the point, in units of 2^-64. So the windows are spread over the set, and also over
// documents of equal length: the same place in every part could be the beginning of every document.
uint64_t spread_window(uint64_t n, uint64_t count, uint64_t index);

class Sampler {
 public:
  // Requires windows >= 1.
  Sampler(uint64_t windows, uint64_t seed, bool shuffle);
  // Returns the window of the sample with this global number; number / windows is the epoch.
  uint64_t window(uint64_t sample) const;
  uint64_t epoch(uint64_t sample) const { return sample / windows_; }
  uint64_t windows() const { return windows_; }

 private:
  uint64_t permute(uint64_t epoch, uint64_t index) const;

  uint64_t windows_;
  uint64_t seed_;
  bool shuffle_;
  uint32_t half_bits_ = 1;
};

}  // namespace nibble
