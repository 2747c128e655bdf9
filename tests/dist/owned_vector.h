// A vector of which each rank owns one range, for tests of sums and gathers.
#pragma once

#include <memory>
#include <vector>

#include "dist/zero/placement.h"

namespace nibble {

class OwnedVector {
 public:
  OwnedVector(uint64_t elements, int ranks)
      : layout_(std::make_unique<Layout>(one_vector("vector", elements))),
        placement_(flat(*layout_, ranks)),
        bounds_(boundaries(placement_)) {}
  operator const Placement&() const { return placement_; }  // NOLINT: it stands for its placement

  // Returns the elements with the gap behind them, a multiple of 16.
  uint64_t elements() const { return layout_->elements(); }
  uint64_t begin(int rank) const { return bounds_[static_cast<size_t>(rank)]; }
  uint64_t end(int rank) const { return bounds_[static_cast<size_t>(rank) + 1]; }
  uint64_t count(int rank) const { return end(rank) - begin(rank); }
  std::vector<uint64_t> byte_offsets(uint64_t width) const {
    std::vector<uint64_t> bytes;
    for (const uint64_t bound : bounds_) bytes.push_back(bound * width);
    return bytes;
  }

 private:
  std::unique_ptr<Layout> layout_;
  Placement placement_;
  std::vector<uint64_t> bounds_;
};

}  // namespace nibble
