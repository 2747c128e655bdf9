// The tree of dist/zero/tree_reduction.h: which sums of groups exist where, and how they become one. Plans only; the
// numbers are added in tree_reduction.cpp and fold.cpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace nibble {

// A node of the tree: the sum of groups [first, first + length), or of those of them that exist.
struct TreeNode {
  uint64_t first = 0;
  uint64_t length = 1;
  size_t value = 0;  // what stands for the sum: a buffer, or a place in a list
};

// Nodes in ascending order of groups; neighbours that are the two halves of a node become that node at once.
class NodeStack {
 public:
  explicit NodeStack(uint64_t groups) : groups_(groups) {}

  // join(left, right): left += right, after which right is free.
  template <class Join>
  void push(const TreeNode& node, const Join& join) {
    nodes_.push_back(node);
    for (;;) {
      TreeNode& top = nodes_.back();
      const bool left_half = top.first % (2 * top.length) == 0;
      if (left_half) {
        // The right half is beyond the last group: the parent is this node.
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

// The buffers of a rank's partial sums: the same course of events on the rank itself and in everybody's plan.
class RankSums {
 public:
  explicit RankSums(uint64_t groups) : stack_(groups) {}

  // A buffer for the next group.
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
  // The rank's maximal nodes, each in its buffer.
  const std::vector<TreeNode>& nodes() const { return stack_.nodes(); }
  size_t buffers() const { return buffers_; }

 private:
  NodeStack stack_;
  std::vector<size_t> free_;
  size_t buffers_ = 0;
};

// Of a rank that has pushed groups [begin, end) of `groups`.
inline RankSums sums_of_range(uint64_t groups, uint64_t begin, uint64_t end) {
  RankSums sums(groups);
  for (uint64_t group = begin; group < end; ++group) sums.push(group, sums.take(), [](size_t, size_t) {});
  return sums;
}

// How a list of nodes, in ascending order of groups, becomes as few as possible.
struct Fold {
  std::vector<std::pair<size_t, size_t>> joins;  // places in the list: left += right, in this order
  std::vector<TreeNode> roots;                   // value: the place that holds the sum
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
