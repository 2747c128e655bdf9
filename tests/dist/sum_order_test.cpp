// The sum over a step's micro-batches is one expression, whoever adds it: with symbols instead of numbers, the ranks
// that keep whole groups (rows) and the owners that fold micro-batches as they arrive (stripes) write down the same
// text. FP32 addition is a function, so the same expression has the same bits.
#include <gtest/gtest.h>

#include <bit>
#include <optional>
#include <string>
#include <vector>

#include "dist/zero/reduction_tree.h"
#include "dist/zero/schedule.h"

namespace nibble {
namespace {

std::string sum(const std::string& left, const std::string& right) {
  return "(" + left + "+" + right + ")";
}

std::string leaf(uint64_t group, const MicroBatchGroups& groups) {
  std::string text = "0";
  for (uint64_t m = groups.first(group); m < groups.first(group + 1); ++m) text = sum(text, std::to_string(m));
  return text;
}

// The definition of law 4 (tree_reduction.h).
std::string node(uint64_t first, uint64_t length, const MicroBatchGroups& groups) {
  if (length == 1) return leaf(first, groups);
  const uint64_t half = length / 2;
  const std::string left = node(first, half, groups);
  return first + half >= groups.count() ? left : sum(left, node(first + half, half, groups));
}
std::string defined(const MicroBatchGroups& groups) {
  return node(0, std::bit_ceil(groups.count()), groups);
}

// Each rank folds its own groups; the owner of a shard folds what all ranks have.
std::string in_rows(const MicroBatchGroups& cut, int ranks) {
  const uint64_t groups = cut.count();
  const Schedule schedule(cut, ranks, Schedule::Order::rows);
  std::vector<std::string> values;
  std::vector<TreeNode> nodes;
  for (int rank = 0; rank < ranks; ++rank) {
    const GroupRange range = schedule.groups_of(rank);
    RankSums sums(groups);
    std::vector<std::string> buffers(groups);
    for (uint64_t group = range.begin; group < range.end; ++group) {
      const size_t buffer = sums.take();
      buffers[buffer] = leaf(group, cut);
      sums.push(group, buffer, [&](size_t left, size_t right) { buffers[left] = sum(buffers[left], buffers[right]); });
    }
    for (TreeNode partial : sums.nodes()) {
      values.push_back(buffers[partial.value]);
      partial.value = values.size() - 1;
      nodes.push_back(partial);
    }
  }
  const Fold fold = fold_of(groups, nodes);
  for (const auto& [left, right] : fold.joins) values[left] = sum(values[left], values[right]);
  EXPECT_EQ(fold.roots.size(), 1u);
  return values[fold.roots.front().value];
}

// An owner adds what arrives in a slot to the open leaf, lane by lane, and pushes the leaf when its group ends, also in
// the middle of a slot.
std::string in_stripes(const MicroBatchGroups& cut, int ranks) {
  const Schedule schedule(cut, ranks, Schedule::Order::stripes);
  RankSums sums(cut.count());
  std::vector<std::string> buffers(sums_of_range(cut.count(), 0, cut.count()).buffers());
  size_t leaf = 0;
  for (uint64_t slot = 0; slot < schedule.slots(); ++slot) {
    for (int lane = 0; lane < ranks; ++lane) {
      const std::optional<uint64_t> micro_batch = schedule.micro_batch(slot, lane);
      if (!micro_batch) continue;
      if (cut.begins_group(*micro_batch)) {
        leaf = sums.take();
        buffers.at(leaf) = "0";
      }
      buffers[leaf] = sum(buffers[leaf], std::to_string(*micro_batch));
      if (!cut.ends_group(*micro_batch)) continue;
      sums.push(cut.group_of(*micro_batch), leaf,
                [&](size_t left, size_t right) { buffers[left] = sum(buffers[left], buffers[right]); });
    }
  }
  EXPECT_EQ(sums.nodes().size(), 1u);
  return buffers[sums.nodes().front().value];
}

TEST(SumOrder, RowsAndStripesOfAnyNumberOfRanksAreOneExpression) {
  for (uint64_t groups = 1; groups <= 69; ++groups) {
    for (const uint64_t micro_batches : {groups, 2 * groups, 2 * groups + groups / 2, 3 * groups}) {
      const MicroBatchGroups cut = MicroBatchGroups::of_count(micro_batches, groups);
      const std::string expected = defined(cut);
      for (int ranks = 1; ranks <= 19; ++ranks) {
        ASSERT_EQ(in_rows(cut, ranks), expected) << groups << " groups, " << ranks << " ranks";
        ASSERT_EQ(in_stripes(cut, ranks), expected) << groups << " groups, " << ranks << " ranks";
      }
    }
  }
  EXPECT_EQ(defined(MicroBatchGroups::of_count(5, 5)), "((((0+0)+(0+1))+((0+2)+(0+3)))+(0+4))");
}

}  // namespace
}  // namespace nibble
