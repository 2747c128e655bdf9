#include "dist/zero/placement.h"

#include <numeric>
#include <optional>
#include <tuple>

#include "dist/base/error.h"

namespace nibble {
namespace {

constexpr uint64_t flat_block = 4096;  // elements

// Returns the largest place at or before `element` at which the tensor may be cut.
uint64_t cut_before(const TensorLayout& tensor, uint64_t element) {
  if (element >= tensor.count) return tensor.count;
  for (const Range& unit : tensor.units()) {
    if (element < unit.end) return unit.begin + (element - unit.begin) / tensor.grain * tensor.grain;
  }
  return tensor.count;
}

// Cuts elements of a tensor into `parts` shares, of which share i ends with the last cut at or before element
// wanted(i), the last with the elements. share(i, elements) gets those that are not empty.
template <class Wanted, class Body>
void cut(const TensorLayout& tensor, Range elements, uint64_t parts, const Wanted& wanted, const Body& share) {
  uint64_t begin = elements.begin;
  for (uint64_t i = 0; i < parts; ++i) {
    const uint64_t end = i + 1 == parts ? elements.end : std::max(begin, cut_before(tensor, wanted(i)));
    if (begin < end) share(i, Range{begin, end});
    begin = end;
  }
}

int ranks_of(std::span<const RankSet> members) {
  int ranks = 0;
  for (const RankSet& member : members) ranks = std::max(ranks, member.rank(member.count - 1) + 1);
  return ranks;
}

// Calls body(tensor index, tensor).
template <class Body>
void for_each_tensor(const Layout& layout, const Body& body) {
  for (size_t i = 0; i < layout.tensors().size(); ++i) body(static_cast<uint32_t>(i), layout.tensors()[i]);
}

void check_shares(const Layout& layout, int ranks, const std::vector<Share>& shares, Placement::Cuts cuts) {
  std::vector<uint64_t> next(layout.tensors().size());
  for (const Share& share : shares) {
    const TensorLayout& tensor = layout.tensors().at(share.tensor);
    NIBBLE_CHECK(share.ranks.count >= 1 && share.ranks.stride >= 1 && share.ranks.first >= 0 &&
                     share.ranks.rank(share.ranks.count - 1) < ranks,
                 "ranks that hold " + tensor.name);
    NIBBLE_CHECK(share.elements.begin == next[share.tensor] && !share.elements.empty(),
                 "shares cover a tensor once: " + tensor.name);
    NIBBLE_CHECK(cuts == Placement::Cuts::anywhere || cut_before(tensor, share.elements.end) == share.elements.end,
                 "a tensor is cut at its grain: " + tensor.name);
    next[share.tensor] = share.elements.end;
  }
  for_each_tensor(layout, [&](uint32_t index, const TensorLayout& tensor) {
    NIBBLE_CHECK(next[index] == tensor.count, "shares cover a tensor: " + tensor.name);
  });
}

}  // namespace

Placement::Placement(const Layout& layout, int ranks, std::vector<Share> shares, Cuts cuts)
    : layout_(&layout),
      shares_(std::move(shares)),
      slices_(static_cast<size_t>(ranks)),
      ranges_(slices_.size()),
      elements_(slices_.size()) {
  NIBBLE_CHECK(ranks >= 1, "a placement needs a rank");
  std::ranges::sort(shares_, {}, [](const Share& share) { return std::tuple(share.tensor, share.elements.begin); });
  check_shares(layout, ranks, shares_, cuts);
  for (const Share& share : shares_) {
    const Range logical = layout.with_gap(share.tensor, share.elements);
    for (int replica = 0; replica < share.ranks.count; ++replica) {
      const auto rank = static_cast<size_t>(share.ranks.rank(replica));
      std::vector<Slice>& slices = slices_[rank];
      std::vector<Range>& ranges = ranges_[rank];
      if (!slices.empty() && slices.back().tensor == share.tensor &&
          slices.back().elements.end == share.elements.begin) {
        slices.back().elements.end = share.elements.end;
      } else {
        slices.push_back({share.tensor, share.elements, elements_[rank]});
      }
      if (!ranges.empty() && ranges.back().end == logical.begin) {
        ranges.back().end = logical.end;
      } else {
        ranges.push_back(logical);
      }
      elements_[rank] += logical.count();
    }
  }
}

Placement replicated(const Layout& layout, int ranks) {
  std::vector<Share> shares;
  for_each_tensor(layout, [&](uint32_t index, const TensorLayout& tensor) {
    shares.push_back({index, {0, tensor.count}, {.first = 0, .stride = 1, .count = ranks}});
  });
  return {layout, ranks, std::move(shares)};
}

Placement flat(const Layout& layout, int ranks) {
  NIBBLE_CHECK(ranks >= 1, "a placement needs a rank");
  const uint64_t blocks = div_ceil(layout.elements(), flat_block);
  std::vector<Share> shares;
  for (int rank = 0; rank < ranks; ++rank) {
    const auto cut_at = [&](int part) {
      return part_boundary(blocks, static_cast<uint64_t>(ranks), static_cast<uint64_t>(part)) * flat_block;
    };
    for_each_part(layout.tensors(), {cut_at(rank), cut_at(rank + 1)}, [&](size_t index, Range part) {
      const uint64_t offset = layout.tensors()[index].offset;
      shares.push_back({static_cast<uint32_t>(index), {part.begin - offset, part.end - offset}, {.first = rank}});
    });
  }
  return {layout, ranks, std::move(shares), Placement::Cuts::anywhere};
}

namespace {

// Returns the shares of members of which each holds one part of `whole`, a range of whole tensors.
void add_parts(const Layout& layout, Range whole, std::span<const RankSet> members, std::vector<Share>& shares) {
  const uint64_t parts = members.size();
  for_each_part(layout.tensors(), whole, [&](size_t index, Range) {
    const TensorLayout& tensor = layout.tensors()[index];
    const auto wanted = [&](uint64_t i) {
      const uint64_t end = whole.begin + part_boundary(whole.count(), parts, i + 1);
      return end - std::min(end, tensor.offset);
    };
    cut(tensor, {0, tensor.count}, parts, wanted, [&](uint64_t i, Range elements) {
      shares.push_back({static_cast<uint32_t>(index), elements, members[i]});
    });
  });
}

}  // namespace

std::vector<RankSet> each_rank(int ranks) {
  std::vector<RankSet> members;
  for (int rank = 0; rank < ranks; ++rank) members.push_back({.first = rank});
  return members;
}

Placement contiguous(const Layout& layout, int ranks) {
  std::vector<Share> shares;
  add_parts(layout, {0, layout.elements()}, each_rank(ranks), shares);
  return {layout, ranks, std::move(shares)};
}

Placement by_bucket(const Layout& layout, std::span<const RankSet> members) {
  std::vector<Share> shares;
  for (const Bucket& bucket : layout.buckets()) add_parts(layout, bucket.range, members, shares);
  return {layout, ranks_of(members), std::move(shares)};
}

Placement by_matrix(const Layout& layout, std::span<const RankSet> members) {
  std::vector<Share> units;
  for_each_tensor(layout, [&](uint32_t index, const TensorLayout& tensor) {
    for (const Range& unit : tensor.units()) units.push_back({index, unit, {}});
  });
  std::ranges::stable_sort(units, std::greater<>(), [](const Share& unit) { return unit.elements.count(); });
  std::vector<uint64_t> load(members.size());
  for (Share& unit : units) {
    const auto least = static_cast<size_t>(std::ranges::min_element(load) - load.begin());
    unit.ranks = members[least];
    load[least] += unit.elements.count();
  }
  return {layout, ranks_of(members), std::move(units)};
}

Placement by_expert(const Layout& layout, std::span<const RankSet> members) {
  std::vector<Share> shares;
  for_each_tensor(layout, [&](uint32_t index, const TensorLayout& tensor) {
    const uint64_t matrix = tensor.count / tensor.matrices;
    for (uint64_t i = 0; i < members.size(); ++i) {
      const Range elements{part_boundary(tensor.matrices, members.size(), i) * matrix,
                           part_boundary(tensor.matrices, members.size(), i + 1) * matrix};
      if (!elements.empty()) shares.push_back({index, elements, members[i]});
    }
  });
  return {layout, ranks_of(members), std::move(shares)};
}

Placement subdivided(const Placement& placement) {
  std::vector<Share> shares;
  for (const Share& share : placement.shares()) {
    const auto replicas = static_cast<uint64_t>(share.ranks.count);
    const auto wanted = [&](uint64_t i) {
      return share.elements.begin + part_boundary(share.elements.count(), replicas, i + 1);
    };
    cut(placement.layout().tensors()[share.tensor], share.elements, replicas, wanted,
        [&](uint64_t replica, Range elements) {
          shares.push_back({share.tensor, elements, {.first = share.ranks.rank(static_cast<int>(replica))}});
        });
  }
  return {placement.layout(), placement.ranks(), std::move(shares)};
}

Placement merged(std::span<const Placement* const> of_tensor) {
  NIBBLE_CHECK(!of_tensor.empty(), "placements to be merged");
  const Placement& any = *of_tensor.front();
  std::vector<Share> shares;
  for (uint32_t tensor = 0; tensor < of_tensor.size(); ++tensor) {
    const Placement& placement = *of_tensor[tensor];
    NIBBLE_CHECK(&placement.layout() == &any.layout() && placement.ranks() == any.ranks(), "placements of one layout");
    for (const Share& share : placement.shares()) {
      if (share.tensor == tensor) shares.push_back(share);
    }
  }
  return {any.layout(), any.ranks(), std::move(shares)};
}

std::vector<uint64_t> boundaries(const Placement& placement) {
  std::vector<uint64_t> result{0};
  for (int rank = 0; rank < placement.ranks(); ++rank) {
    const std::vector<Range>& ranges = placement.ranges(rank);
    NIBBLE_CHECK(ranges.size() <= 1 && (ranges.empty() || ranges.front().begin == result.back()),
                 "the ranges of the ranks follow each other");
    result.push_back(ranges.empty() ? result.back() : ranges.front().end);
  }
  return result;
}

namespace {

// Returns where an element of a tensor stands in a rank's buffer; nothing if the rank does not hold it.
std::optional<uint64_t> position_on(const Placement& placement, int rank, uint32_t tensor, uint64_t element) {
  const std::span<const Slice> slices = placement.slices(rank);
  const auto after = std::ranges::upper_bound(slices, std::tuple(tensor, element), {}, [](const Slice& slice) {
    return std::tuple(slice.tensor, slice.elements.begin);
  });
  if (after == slices.begin()) return std::nullopt;
  const Slice& slice = *(after - 1);
  if (slice.tensor != tensor || element >= slice.elements.end) return std::nullopt;
  return slice.at + (element - slice.elements.begin);
}

bool holds(const RankSet& ranks, int rank) {
  const int distance = rank - ranks.first;
  return distance >= 0 && distance % ranks.stride == 0 && distance / ranks.stride < ranks.count;
}

int source_for(const RankSet& holders, int rank, std::span<const int> machines) {
  if (holds(holders, rank)) return rank;
  for (int replica = 0; replica < holders.count && !machines.empty(); ++replica) {
    const int holder = holders.rank(replica);
    if (machines[static_cast<size_t>(holder)] == machines[static_cast<size_t>(rank)]) return holder;
  }
  return holders.first;
}

// Calls body(move) for everything that `rank` needs; the peer is where it comes from, perhaps the rank itself.
template <class Body>
void for_each_needed(const Placement& from, const Placement& to, int rank, std::span<const int> machines,
                     const Body& body) {
  size_t next = 0;  // shares of `from` and slices of `to` are in the same order
  const std::vector<Share>& shares = from.shares();
  for (const Slice& slice : to.slices(rank)) {
    while (next < shares.size() && std::tuple(shares[next].tensor, shares[next].elements.end) <=
                                       std::tuple(slice.tensor, slice.elements.begin)) {
      ++next;
    }
    for (size_t i = next; i < shares.size() && shares[i].tensor == slice.tensor; ++i) {
      const Range elements = intersect(shares[i].elements, slice.elements);
      if (elements.empty()) break;
      const int source = source_for(shares[i].ranks, rank, machines);
      body(Move{.tensor = slice.tensor,
                .elements = elements,
                .from = *position_on(from, source, slice.tensor, elements.begin),
                .to = slice.at + (elements.begin - slice.elements.begin),
                .peer = source});
    }
  }
}

}  // namespace

Moves moves(const Placement& from, const Placement& to, int rank, std::span<const int> machines) {
  NIBBLE_CHECK(&from.layout() == &to.layout() && from.ranks() == to.ranks(), "placements of one layout");
  NIBBLE_CHECK(machines.empty() || machines.size() == static_cast<size_t>(from.ranks()), "a machine for each rank");
  Moves result;
  for_each_needed(from, to, rank, machines,
                  [&](const Move& move) { (move.peer == rank ? result.local : result.receive).push_back(move); });
  for (int other = 0; other < from.ranks(); ++other) {
    if (other == rank) continue;
    for_each_needed(from, to, other, machines, [&](Move move) {
      if (move.peer != rank) return;
      move.peer = other;
      result.send.push_back(move);
    });
  }
  return result;
}

}  // namespace nibble
