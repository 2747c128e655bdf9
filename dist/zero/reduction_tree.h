// The tree of dist/zero/tree_reduction.h: which sums of groups exist where, and how they become one. This header only
// decides the order; tree_reduction.cpp and fold.cpp add the numbers.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace nibble {

// A node of the tree: the sum of the groups in [first, first + length) that exist.
struct TreeNode {
  uint64_t first = 0;
  uint64_t length = 1;
  size_t value = 0;  // the sum: index of a buffer, or of an entry of a list
};

// Returns the largest node that begins with group `first` and ends at `end` or before.
inline TreeNode largest_node(uint64_t first, uint64_t end, size_t value) {
  const uint64_t fits = std::bit_floor(end - first);
  const uint64_t aligned = first == 0 ? fits : first & (~first + 1);  // the largest power of two that divides `first`
  return {first, std::min(fits, aligned), value};
}

// Nodes in ascending order of groups. Two neighbours that are the halves of a node become that node at once.
class NodeStack {
 public:
  explicit NodeStack(uint64_t groups) : groups_(groups) {}

  // Adds a node. join(left, right) performs left += right, after which right is free.
  template <class Join>
  void push(const TreeNode& node, const Join& join) {
    nodes_.push_back(node);
    for (;;) {
      TreeNode& top = nodes_.back();
      const bool left_half = top.first % (2 * top.length) == 0;
      if (left_half) {
        // If the right half is beyond the last group, the parent is this node.
        const bool alone = top.first + top.length >= groups_;
        if (!alone || (top.first == 0 && top.length >= groups_)) return;
        top.length *= 2;
        continue;
      }
      if (nodes_.size() < 2) return;
      TreeNode& before = nodes_[nodes_.size() - 2];
      if (before.length != top.length || before.first + before.length != top.first) return;
      join(before.value, top.value);
      before.length *= 2;
      nodes_.pop_back();
    }
  }

  const std::vector<TreeNode>& nodes() const { return nodes_; }

 private:
  uint64_t groups_;
  std::vector<TreeNode> nodes_;
};

// The buffers of a rank's partial sums. The rank itself and every other rank's plan go through the same operations.
class RankSums {
 public:
  explicit RankSums(uint64_t groups) : stack_(groups) {}

  // Returns a buffer for the next group.
  size_t take() {
    if (free_.empty()) return buffers_++;
    const size_t buffer = free_.back();
    free_.pop_back();
    return buffer;
  }
  template <class Join>
  void push(uint64_t group, size_t buffer, const Join& join) {
    stack_.push({group, 1, buffer}, [&](size_t left, size_t right) {
      join(left, right);
      free_.push_back(right);
    });
  }
  // Returns the rank's maximal nodes, each in its buffer.
  const std::vector<TreeNode>& nodes() const { return stack_.nodes(); }
  size_t buffers() const { return buffers_; }

 private:
  NodeStack stack_;
  std::vector<size_t> free_;
  size_t buffers_ = 0;
};

// Returns the partial sums that a rank holds after it has pushed groups [begin, end) of `groups`.
inline RankSums sums_of_range(uint64_t groups, uint64_t begin, uint64_t end) {
  RankSums sums(groups);
  for (uint64_t group = begin; group < end; ++group) sums.push(group, sums.take(), [](size_t, size_t) {});
  return sums;
}

// The joins that turn a list of nodes, in ascending order of groups, into as few nodes as possible.
struct Fold {
  std::vector<std::pair<size_t, size_t>> joins;  // indices in the list: left += right, in this order
  std::vector<TreeNode> roots;                   // value: the index in the list that holds the sum
};

inline Fold fold_of(uint64_t groups, const std::vector<TreeNode>& nodes) {
  Fold fold;
  NodeStack stack(groups);
  for (size_t i = 0; i < nodes.size(); ++i) {
    stack.push({nodes[i].first, nodes[i].length, i},
               [&](size_t left, size_t right) { fold.joins.emplace_back(left, right); });
  }
  fold.roots = stack.nodes();
  return fold;
}

}  // namespace nibble
