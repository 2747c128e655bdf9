// The sum over a step's micro-batches is one expression, whoever adds it: with symbols instead of numbers, the ranks
// that keep whole groups (rows) and the owners that fold micro-batches as they arrive (stripes) write down the same
// text. FP32 addition is a function, so the same expression has the same bits.
#include <gtest/gtest.h>

#include <string>

#include "dist/zero/reduction_tree.h"
#include "dist/zero/tree_reduction.h"

namespace nibble {
namespace {

std::string sum(const std::string& left, const std::string& right) {
  return "(" + left + "+" + right + ")";
}

// Group g of G holds micro-batches [first(g), first(g + 1)).
uint64_t first_of(uint64_t group, uint64_t groups, uint64_t micro_batches) {
  return micro_batches / groups * group + micro_batches % groups * group / groups;
}

std::string leaf(uint64_t group, uint64_t groups, uint64_t micro_batches) {
  std::string text = "0";
  for (uint64_t m = first_of(group, groups, micro_batches); m < first_of(group + 1, groups, micro_batches); ++m) {
    text = sum(text, std::to_string(m));
  }
  return text;
}

// The definition of law 4 (tree_reduction.h).
std::string node(uint64_t first, uint64_t length, uint64_t groups, uint64_t micro_batches) {
  if (length == 1) return leaf(first, groups, micro_batches);
  const uint64_t half = length / 2;
  const std::string left = node(first, half, groups, micro_batches);
  return first + half >= groups ? left : sum(left, node(first + half, half, groups, micro_batches));
}
std::string defined(uint64_t groups, uint64_t micro_batches) {
  uint64_t length = 1;
  while (length < groups) length *= 2;
  return node(0, length, groups, micro_batches);
}

// Each rank folds its own groups; the owner of a shard folds what all ranks have.
std::string in_rows(uint64_t groups, uint64_t micro_batches, int ranks) {
  std::vector<std::string> values;
  std::vector<TreeNode> nodes;
  for (int rank = 0; rank < ranks; ++rank) {
    const GroupRange range = groups_of_rank(groups, rank, ranks);
    RankSums sums(groups);
    std::vector<std::string> buffers(groups);
    for (uint64_t group = range.begin; group < range.end; ++group) {
      const size_t buffer = sums.take();
      buffers[buffer] = leaf(group, groups, micro_batches);
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

// Slot s has micro-batches s P .. s P + P - 1, one a rank. An owner adds what arrives to the open leaf, and pushes the
// leaf when its group ends, also in the middle of a slot.
std::string in_stripes(uint64_t groups, uint64_t micro_batches, uint64_t ranks) {
  NodeStack stack(groups);
  std::vector<std::string> values;
  std::string open = "0";
  uint64_t group = 0;
  for (uint64_t slot = 0; slot * ranks < micro_batches; ++slot) {
    for (uint64_t lane = 0; lane < ranks; ++lane) {
      const uint64_t micro_batch = slot * ranks + lane;
      if (micro_batch >= micro_batches) continue;  // an idle lane
      open = sum(open, std::to_string(micro_batch));
      if (micro_batch + 1 < first_of(group + 1, groups, micro_batches)) continue;
      values.push_back(open);
      stack.push({group, 1, values.size() - 1},
                 [&](size_t left, size_t right) { values[left] = sum(values[left], values[right]); });
      open = "0";
      ++group;
    }
  }
  EXPECT_EQ(stack.nodes().size(), 1u);
  return values[stack.nodes().front().value];
}

TEST(SumOrder, RowsAndStripesOfAnyNumberOfRanksAreOneExpression) {
  for (uint64_t groups = 1; groups <= 69; ++groups) {
    for (const uint64_t micro_batches : {groups, 2 * groups, 2 * groups + groups / 2, 3 * groups}) {
      const std::string expected = defined(groups, micro_batches);
      for (int ranks = 1; ranks <= 19; ++ranks) {
        ASSERT_EQ(in_rows(groups, micro_batches, ranks), expected) << groups << " groups, " << ranks << " ranks";
        ASSERT_EQ(in_stripes(groups, micro_batches, static_cast<uint64_t>(ranks)), expected)
            << groups << " groups, " << ranks << " ranks";
      }
    }
  }
  EXPECT_EQ(defined(5, 5), "((((0+0)+(0+1))+((0+2)+(0+3)))+(0+4))");
}

}  // namespace
}  // namespace nibble
