// Tests of the partition of a flat buffer and of the tree's order of sums.
#include "dist/zero/partition.h"

#include <gtest/gtest.h>

#include "dist/base/error.h"
#include "dist/zero/tree_reduction.h"

namespace nibble {
namespace {

TEST(Partition, CoversEverythingInWholeBlocksAndEvenly) {
  const uint64_t block = Partition::block;
  for (const uint64_t elements : {uint64_t{0}, uint64_t{1}, block - 1, block, block + 1, 7 * block, 100 * block + 5}) {
    for (const int ranks : {1, 2, 3, 4, 7, 200}) {
      const Partition partition(elements, ranks);
      EXPECT_EQ(partition.ranks(), ranks);
      EXPECT_EQ(partition.elements(), elements);
      EXPECT_EQ(partition.begin(0), 0u);
      uint64_t least = UINT64_MAX;
      uint64_t most = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        ASSERT_LE(partition.begin(rank), partition.end(rank));
        if (rank > 0) {
          ASSERT_EQ(partition.begin(rank), partition.end(rank - 1));
        }
        ASSERT_TRUE(partition.begin(rank) % block == 0 || partition.begin(rank) == elements);
        const uint64_t blocks = div_ceil(partition.count(rank), block);
        least = std::min(least, blocks);
        most = std::max(most, blocks);
      }
      EXPECT_EQ(partition.end(ranks - 1), elements);
      EXPECT_LE(most - least, 1u);
    }
  }
}

TEST(Partition, ByteOffsetsFitAGather) {
  const Partition partition(3 * Partition::block + 1, 2);
  const std::vector<uint64_t> offsets = partition.byte_offsets(2);
  ASSERT_EQ(offsets.size(), 3u);
  EXPECT_EQ(offsets[1], partition.end(0) * 2);
  EXPECT_EQ(offsets[2], (3 * Partition::block + 1) * 2);
  EXPECT_THROW(partition.byte_offsets(UINT64_MAX), Error);
}

TEST(Partition, HugeBuffersDoNotOverflow) {
  const Partition partition(uint64_t{1} << 62, 4096);
  EXPECT_EQ(partition.end(4095), uint64_t{1} << 62);
  EXPECT_EQ(partition.count(4095), uint64_t{1} << 50);
}

TEST(Groups, EveryGroupHasOneRank) {
  for (uint64_t groups = 1; groups < 40; ++groups) {
    for (int ranks = 1; ranks < 10; ++ranks) {
      uint64_t next = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        const GroupRange range = groups_of_rank(groups, rank, ranks);
        EXPECT_EQ(range.begin, next);
        EXPECT_LE(range.end - range.begin, div_ceil(groups, static_cast<uint64_t>(ranks)));
        next = range.end;
      }
      EXPECT_EQ(next, groups);
    }
  }
}

TEST(TreeSum, AddsInTheTreesOrder) {
  // 2^53 absorbs a single 1 but not two of them, so every other order of these additions gives another sum.
  const double big = 9007199254740992.0;
  EXPECT_EQ(tree_sum(std::vector<double>{}), 0.0);
  EXPECT_EQ(tree_sum(std::vector<double>{3}), 3.0);
  EXPECT_EQ(tree_sum(std::vector<double>{big, 1, 1}), (big + 1) + 1);
  EXPECT_EQ(tree_sum(std::vector<double>{big, 0, 1, 1}), big + 2);
  EXPECT_EQ(tree_sum(std::vector<double>{big, 0, 0, 0, 1, 1}), big + 2);
  EXPECT_EQ(tree_sum(std::vector<double>{0, 0, big, 1, 1}), ((big + 1) + 0) + 1);
}

}  // namespace
}  // namespace nibble
