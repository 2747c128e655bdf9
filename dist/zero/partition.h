// The elements of a flat parameter buffer that each rank owns (ZeRO-1). Boundaries are multiples of `block`, so that
// sums over blocks, and therefore the gradient norm, do not depend on the number of ranks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace nibble {

class Partition {
 public:
  static constexpr uint64_t block = 4096;  // elements

  Partition(uint64_t elements, int ranks);
  uint64_t begin(int rank) const { return offsets_[static_cast<size_t>(rank)]; }
  uint64_t end(int rank) const { return offsets_[static_cast<size_t>(rank) + 1]; }
  uint64_t count(int rank) const { return end(rank) - begin(rank); }
  uint64_t elements() const { return offsets_.back(); }
  int ranks() const { return static_cast<int>(offsets_.size()) - 1; }
  // Returns the ranks()+1 boundaries times bytes_per_element, as Communicator::all_gather takes them.
  std::vector<uint64_t> byte_offsets(uint64_t bytes_per_element) const;

 private:
  std::vector<uint64_t> offsets_;
};

}  // namespace nibble
