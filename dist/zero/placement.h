// Who holds what: which elements of each tensor of a Layout lie on which ranks, and where in their buffers.
//
// A run has two placements: of weights (who can compute with them), and of what is owned (who holds the gradient's sum
// and updates). ZeRO stages, replicated groups, experts and matrices that are owned whole are placements, not code
// paths. A rank's buffer holds its slices in ascending order, each with the gap after its tensor if it has the end.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "dist/zero/layout.h"

namespace nibble {

// The ranks first, first + stride, ... that hold the same elements.
struct RankSet {
  int first = 0;
  int stride = 1;
  int count = 1;
  int rank(int replica) const { return first + replica * stride; }
};

// Elements of a tensor, and who holds them.
struct Share {
  uint32_t tensor = 0;  // index in Layout::tensors()
  Range elements = {};
  RankSet ranks = {};
};

// Elements of a tensor on one rank; `at` is where the first of them stands in the rank's buffer.
struct Slice {
  uint32_t tensor = 0;
  Range elements = {};
  uint64_t at = 0;
  friend bool operator==(const Slice&, const Slice&) = default;
};
// Returns the range in the rank's buffer.
inline Range range_of(const Slice& slice) {
  return {slice.at, slice.at + slice.elements.count()};
}

class Placement {
 public:
  // flat() cuts the logical order where it likes; all others respect the grains of the tensors.
  enum class Cuts : uint8_t { at_grains, anywhere };

  // Checks (NIBBLE_CHECK) that the shares cover every element of every tensor once and that cuts are at grains. The
  // layout must outlive the placement. Shares may come in any order.
  Placement(const Layout& layout, int ranks, std::vector<Share> shares, Cuts cuts = Cuts::at_grains);

  const Layout& layout() const { return *layout_; }
  int ranks() const { return static_cast<int>(slices_.size()); }
  // Returns all shares in the order of the tensors and their elements.
  const std::vector<Share>& shares() const { return shares_; }
  std::span<const Slice> slices(int rank) const { return slices_.at(static_cast<size_t>(rank)); }
  // Returns the elements of the rank's buffer, gaps included.
  uint64_t elements(int rank) const { return elements_.at(static_cast<size_t>(rank)); }
  // Returns what the rank's buffer holds, in the order of the buffer, as ranges of the logical order that do not
  // touch. All ranks together hold the whole order.
  const std::vector<Range>& ranges(int rank) const { return ranges_.at(static_cast<size_t>(rank)); }

 private:
  const Layout* layout_;
  std::vector<Share> shares_;
  std::vector<std::vector<Slice>> slices_;
  std::vector<std::vector<Range>> ranges_;
  std::vector<uint64_t> elements_;
};

// Returns the members of which each is one rank.
std::vector<RankSet> each_rank(int ranks);

// Every rank holds everything.
Placement replicated(const Layout& layout, int ranks);
// Every rank holds one range of the logical order, in blocks of 4096 elements; the ranges are about equally long.
Placement flat(const Layout& layout, int ranks);
// The same, but the ranges are cut at grains.
Placement contiguous(const Layout& layout, int ranks);
// Member i of the list holds part i of every bucket; the parts are about equally long.
Placement by_bucket(const Layout& layout, std::span<const RankSet> members);
// Units are held whole (TensorLayout::units()): the largest first, each by the member that has the fewest elements.
Placement by_matrix(const Layout& layout, std::span<const RankSet> members);
// Member i of M holds matrices [iE/M, (i+1)E/M) of every stack of E; a tensor that is no stack counts as one of 1.
Placement by_expert(const Layout& layout, std::span<const RankSet> members);
// A share of r replicas becomes r shares of one rank each.
Placement subdivided(const Placement& placement);
// Tensor t lies as of_tensor[t] has it. All are of the same layout and number of ranks.
Placement merged(std::span<const Placement* const> of_tensor);

// Returns the ranks()+1 boundaries of a placement in which each rank holds one range of the logical order and these
// follow each other (NIBBLE_CHECK).
std::vector<uint64_t> boundaries(const Placement& placement);

// Elements that go from one buffer to another; `from` and `to` are where they begin in the buffers of the two ranks.
struct Move {
  uint32_t tensor = 0;
  Range elements = {};
  uint64_t from = 0;
  uint64_t to = 0;
  int peer = 0;
};
struct Moves {
  std::vector<Move> send, receive, local;
};
// Returns what `rank` sends and receives so that data that lie as `from` lie as `to` afterwards. Elements come from the
// rank itself if it has them, else from the lowest holder on its machine, else from the lowest. `machines` has the
// number of each rank's machine; empty: each rank is on a machine of its own. Lists of a pair of ranks are in the same
// order on both.
Moves moves(const Placement& from, const Placement& to, int rank, std::span<const int> machines = {});

}  // namespace nibble
