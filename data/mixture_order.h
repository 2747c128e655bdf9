// Which part of a mixture each sample comes from.
//
// Sample k has the slot s(k). A slot is a point of [0, 1): the bits of s in reverse order behind the binary point (the
// sequence of van der Corput). The parts cut [0, 1) into intervals as long as their shares of the weights, and sample k
// comes from the part in whose interval its point lies.
//
// The slots of the 65,536 samples of a block, k with one k >> 16, are a permutation of the block that is drawn from
// (seed, block): bit b of s, below bit 16, is bit b of k, exclusive or the lowest bit of the XXH3-64 of the three
// little-endian 64-bit integers seed, b, k >> (b + 1). So samples k of any aligned run of 2^b, whose k >> b are equal,
// have the slots of one aligned run, and their points lie in each interval [i 2^-b, (i + 1) 2^-b) once. A part with the
// share w therefore has its exact quota w 2^b in every such run, up to less than one sample: not only in whole blocks,
// which a short run does not fill, but in every 2, 4, 8, ... samples; and the first k samples of a run have it up to
// log2(k) + 1 samples. Inside those bounds the order is random.
//
// The part of a sample and its number among the samples of its part are functions of k, computed without those before.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace nibble {

class MixtureOrder {
 public:
  // Weights are above 0; only their ratios count.
  MixtureOrder(std::span<const double> weights, uint64_t seed);

  size_t parts() const { return shares_.size(); }
  double share(size_t part) const { return shares_[part]; }  // of all samples; the shares add up to 1
  size_t part_of(uint64_t sample) const;
  // Returns how many of the samples before `sample` come from a part.
  uint64_t taken(size_t part, uint64_t sample) const;

 private:
  uint64_t slot_of(uint64_t sample) const;
  uint64_t below(size_t part, uint64_t sample) const;

  uint64_t seed_;
  std::vector<double> shares_;
  std::vector<uint64_t> ends_;  // of the intervals but the last one, which ends at 1, in units of 2^-64
};

}  // namespace nibble
