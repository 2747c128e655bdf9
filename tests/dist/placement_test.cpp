// Tests of who holds what, on layouts drawn at random.
#include "dist/zero/placement.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>

#include "dist/base/error.h"
#include "random_layout.h"

namespace nibble {
namespace {

// `ranks` = groups times replicas: member n is held by ranks n, n + groups, ...
std::vector<RankSet> replica_groups(int groups, int replicas) {
  std::vector<RankSet> members;
  for (int group = 0; group < groups; ++group) {
    members.push_back({.first = group, .stride = groups, .count = replicas});
  }
  return members;
}

struct Named {
  const char* name;
  Placement placement;
};

// Every way to place a layout on this number of ranks.
std::vector<Named> placements(const Layout& layout, int ranks) {
  const std::vector<RankSet> singles = each_rank(ranks);
  std::vector<Named> all{
      {"replicated", replicated(layout, ranks)}, {"flat", flat(layout, ranks)},
      {"by_bucket", by_bucket(layout, singles)}, {"by_matrix", by_matrix(layout, singles)},
      {"by_expert", by_expert(layout, singles)}, {"subdivided", subdivided(replicated(layout, ranks))}};
  std::vector<const Placement*> of_tensor;
  for (size_t i = 0; i < layout.tensors().size(); ++i) {
    of_tensor.push_back(&all[layout.tensors()[i].use == TensorUse::matrix ? 3 : 2].placement);
  }
  all.push_back({"merged", merged(of_tensor)});
  for (int replicas = 2; replicas <= ranks; ++replicas) {
    if (ranks % replicas != 0) continue;
    all.push_back({"replica groups", by_bucket(layout, replica_groups(ranks / replicas, replicas))});
    all.push_back({"subdivided groups", subdivided(all.back().placement)});
    all.push_back({"expert groups", by_expert(layout, replica_groups(ranks / replicas, replicas))});
    break;
  }
  return all;
}

bool at_grain(const TensorLayout& tensor, uint64_t element) {
  for (const Range& unit : tensor.units()) {
    if (element == unit.end) return true;
    if (element >= unit.begin && element < unit.end) return (element - unit.begin) % tensor.grain == 0;
  }
  return false;
}

TEST(Placement, EveryElementIsHeldAndCutsAreAtGrains) {
  for (uint32_t seed = 0; seed < 12; ++seed) {
    const Layout layout = random_layout(seed);
    for (const int ranks : {1, 2, 3, 4, 5, 8, 13, 31, 64}) {
      for (const auto& [name, placement] : placements(layout, ranks)) {
        SCOPED_TRACE(fmt::format("{} on {} ranks, seed {}", name, ranks, seed));
        const bool alone = std::ranges::all_of(placement.shares(), [](const Share& s) { return s.ranks.count == 1; });
        std::vector<int> held(layout.elements());
        for (int rank = 0; rank < ranks; ++rank) {
          uint64_t at = 0;
          for (const Range& range : placement.ranges(rank)) {
            for (uint64_t i = range.begin; i < range.end; ++i) ++held[i];
            at += range.count();
          }
          ASSERT_EQ(at, placement.elements(rank));
          uint64_t next = 0;
          for (const Slice& slice : placement.slices(rank)) {
            const TensorLayout& tensor = layout.tensors()[slice.tensor];
            ASSERT_EQ(slice.at, next);
            next += layout.with_gap(slice.tensor, slice.elements).count();
            if (std::string(name) != "flat") {
              ASSERT_TRUE(at_grain(tensor, slice.elements.begin) && at_grain(tensor, slice.elements.end));
            }
          }
          ASSERT_EQ(next, placement.elements(rank));
        }
        if (alone) {
          ASSERT_EQ(held, std::vector<int>(layout.elements(), 1));
        } else {
          ASSERT_TRUE(std::ranges::all_of(held, [](int count) { return count >= 1; }));
        }
      }
    }
  }
}

// The buffers of all ranks, each element with its number in the logical order; gaps are UINT64_MAX.
using Buffers = std::vector<std::vector<uint64_t>>;

Buffers filled(const Placement& placement) {
  Buffers buffers;
  for (int rank = 0; rank < placement.ranks(); ++rank) {
    std::vector<uint64_t>& buffer = buffers.emplace_back(placement.elements(rank), UINT64_MAX);
    for (const Slice& slice : placement.slices(rank)) {
      const uint64_t first = placement.layout().tensors()[slice.tensor].offset + slice.elements.begin;
      std::iota(buffer.begin() + static_cast<int64_t>(slice.at),
                buffer.begin() + static_cast<int64_t>(slice.at + slice.elements.count()), first);
    }
  }
  return buffers;
}

Buffers moved(const Placement& from, const Placement& to, const Buffers& data, std::span<const int> machines) {
  Buffers result;
  std::map<std::pair<int, int>, std::vector<Move>> sent;  // by (from, to)
  for (int rank = 0; rank < from.ranks(); ++rank) {
    for (const Move& move : moves(from, to, rank, machines).send) sent[{rank, move.peer}].push_back(move);
  }
  for (int rank = 0; rank < from.ranks(); ++rank) {
    std::vector<uint64_t>& buffer = result.emplace_back(to.elements(rank), UINT64_MAX);
    const Moves plan = moves(from, to, rank, machines);
    const auto take = [&](const Move& move, int source) {
      const auto begin = data[static_cast<size_t>(source)].begin() + static_cast<int64_t>(move.from);
      std::copy_n(begin, move.elements.count(), buffer.begin() + static_cast<int64_t>(move.to));
    };
    for (const Move& move : plan.local) take(move, rank);
    std::map<int, size_t> next;
    for (const Move& move : plan.receive) {
      take(move, move.peer);
      const Move& other = sent.at({move.peer, rank}).at(next[move.peer]++);
      EXPECT_TRUE(other.tensor == move.tensor && other.elements == move.elements && other.from == move.from &&
                  other.to == move.to);
    }
    for (const auto& [peer, count] : next) EXPECT_EQ(sent.at({peer, rank}).size(), count);
  }
  return result;
}

TEST(Placement, MovesThereAndBackAreTheIdentity) {
  for (uint32_t seed = 0; seed < 6; ++seed) {
    const Layout layout = random_layout(seed);
    for (const int ranks : {1, 2, 3, 6, 16}) {
      const std::vector<Named> all = placements(layout, ranks);
      std::vector<int> machines;
      for (int rank = 0; rank < ranks; ++rank) machines.push_back(rank / 2);
      for (const auto& from : all) {
        for (const auto& to : all) {
          SCOPED_TRACE(fmt::format("{} to {} on {} ranks, seed {}", from.name, to.name, ranks, seed));
          const Buffers there = moved(from.placement, to.placement, filled(from.placement), machines);
          ASSERT_EQ(there, filled(to.placement));
          ASSERT_EQ(moved(to.placement, from.placement, there, {}), filled(from.placement));
        }
      }
    }
  }
}

TEST(Placement, ElementsComeFromTheNearestHolder) {
  const Layout layout = random_layout(3);
  const Placement everywhere = replicated(layout, 4);
  EXPECT_TRUE(moves(everywhere, flat(layout, 4), 3).receive.empty());
  // Two groups of two ranks: 0 and 2 hold one half of each bucket, 1 and 3 the other one.
  const Placement halves = by_bucket(layout, replica_groups(2, 2));
  const std::vector<int> machines{0, 0, 1, 1};
  for (const Move& move : moves(halves, everywhere, 2, machines).receive) EXPECT_EQ(move.peer, 3);
  for (const Move& move : moves(halves, everywhere, 2).receive) EXPECT_EQ(move.peer, 1);
}

// The cuts of runs before there were placements: whole blocks of 4096 elements, about equally many.
TEST(Placement, FlatCutsAreTheOldOnes) {
  for (uint32_t seed = 0; seed < 30; ++seed) {
    const Layout layout = random_layout(seed);
    const uint64_t blocks = div_ceil(layout.elements(), uint64_t{4096});
    for (uint64_t ranks = 1; ranks <= 64; ++ranks) {
      const Placement placement = flat(layout, static_cast<int>(ranks));
      for (uint64_t rank = 0; rank < ranks; ++rank) {
        const auto bound = [&](uint64_t part) {
          return std::min(layout.elements(), (blocks / ranks * part + blocks % ranks * part / ranks) * 4096);
        };
        std::vector<Range> expected{{bound(rank), bound(rank + 1)}};
        if (expected.front().empty()) expected.clear();
        ASSERT_EQ(placement.ranges(static_cast<int>(rank)), expected);
      }
    }
  }
}

TEST(Placement, PartsOfBucketsAreAboutEquallyLong) {
  std::vector<TensorLayout> tensors{{.name = "a", .shape = {1000, 1000}, .offset = 0, .count = 1000000, .grain = 4096}};
  const Layout layout({{"all", {0, 1000000}}}, tensors);
  const Placement placement = by_bucket(layout, each_rank(7));
  for (int rank = 0; rank < 7; ++rank) {
    EXPECT_NEAR(static_cast<double>(placement.elements(rank)), 1e6 / 7, 4096);
  }
}

TEST(Placement, TheLargestUnitsAreSpreadFirst) {
  std::vector<TensorLayout> tensors;
  uint64_t offset = 0;
  for (const int64_t rows : {16, 160, 32, 64, 96}) {
    tensors.push_back({.name = fmt::format("t{}", rows),
                       .shape = {rows, 16},
                       .tensor_id = static_cast<uint32_t>(tensors.size()),
                       .offset = offset,
                       .count = static_cast<uint64_t>(rows) * 16});
    offset += tensors.back().count;
  }
  const Layout layout({{"all", {0, offset}}}, tensors);
  const Placement placement = by_matrix(layout, each_rank(2));
  EXPECT_EQ(placement.elements(0), 16u * (160 + 32));
  EXPECT_EQ(placement.elements(1), 16u * (96 + 64 + 16));
}

TEST(Placement, SharesThatDoNotCoverOrCutOffTheGrainAreDefects) {
  const Layout layout({{"all", {0, 8192}}}, {{.name = "a", .shape = {8192}, .count = 8192, .grain = 4096}});
  EXPECT_NO_THROW(Placement(layout, 2, {{0, {4096, 8192}, {.first = 1}}, {0, {0, 4096}, {.first = 0}}}));
  EXPECT_THROW(Placement(layout, 2, {{0, {0, 4096}, {.first = 0}}}), Error);
  EXPECT_THROW(Placement(layout, 2, {{0, {0, 8192}, {.first = 0}}, {0, {4096, 8192}, {.first = 1}}}), Error);
  EXPECT_THROW(Placement(layout, 2, {{0, {0, 4000}, {.first = 0}}, {0, {4000, 8192}, {.first = 1}}}), Error);
  EXPECT_THROW(Placement(layout, 2, {{0, {0, 8192}, {.first = 2}}}), Error);
}

}  // namespace
}  // namespace nibble
