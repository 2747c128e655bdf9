// Tests of who has which groups, and of the tree's order of sums.
#include <gtest/gtest.h>

#include "dist/base/error.h"
#include "dist/zero/tree_reduction.h"

namespace nibble {
namespace {

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
