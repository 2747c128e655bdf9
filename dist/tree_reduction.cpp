#include "dist/tree_reduction.h"

#include <algorithm>
#include <cstring>

#include "dist/error.h"
#include "dist/profile.h"
#include "dist/thread_pool.h"
#include "dist/vectorize.h"

namespace nibble {
namespace {

constexpr size_t elements_at_once = 16384;  // of parallel_for: 64 KiB of each operand

NIBBLE_VECTORIZE void add_range(float* left, const float* right, size_t count) {
  for (size_t i = 0; i < count; ++i) left[i] += right[i];
}

void add(float* left, const float* right, uint64_t count) {
  parallel_for(count, elements_at_once,
               [&](size_t begin, size_t end) { add_range(left + begin, right + begin, end - begin); });
}

// A node of the tree: the sum of groups [first, first + length), or of those of them that exist.
template <class Value>
struct Node {
  uint64_t first;
  uint64_t length;
  Value value;
};

// Nodes in ascending order of groups; neighbours that are the two halves of a node become that node at once.
template <class Value>
class NodeStack {
 public:
  explicit NodeStack(uint64_t groups) : groups_(groups) {}

  // join(left, right): left += right, after which right is free.
  template <class Join>
  void push(const Node<Value>& node, const Join& join) {
    nodes_.push_back(node);
    for (;;) {
      Node<Value>& top = nodes_.back();
      const bool left_half = top.first % (2 * top.length) == 0;
      if (left_half) {
        // The right half is beyond the last group: the parent is this node.
        const bool alone = top.first + top.length >= groups_;
        if (!alone || (top.first == 0 && top.length >= groups_)) return;
        top.length *= 2;
        continue;
      }
      if (nodes_.size() < 2) return;
      Node<Value>& before = nodes_[nodes_.size() - 2];
      if (before.length != top.length || before.first + before.length != top.first) return;
      join(before.value, top.value);
      before.length *= 2;
      nodes_.pop_back();
    }
  }

  const std::vector<Node<Value>>& nodes() const { return nodes_; }
  void clear() { nodes_.clear(); }

 private:
  uint64_t groups_;
  std::vector<Node<Value>> nodes_;
};

struct Nothing {};

// The maximal nodes that a rank folds its groups into, and how many buffers that takes at most, the leaf included.
struct RankNodes {
  std::vector<Node<Nothing>> nodes;
  size_t buffers = 0;
};

RankNodes nodes_of_rank(uint64_t groups, GroupRange range) {
  NodeStack<Nothing> stack(groups);
  RankNodes result;
  for (uint64_t group = range.begin; group < range.end; ++group) {
    result.buffers = std::max(result.buffers, stack.nodes().size() + 1);
    stack.push({group, 1, {}}, [](Nothing&, Nothing&) {});
  }
  result.nodes = stack.nodes();
  return result;
}

double tree_sum_of(std::span<const double> values, uint64_t first, uint64_t length) {
  if (length == 1) return values[first];
  const uint64_t half = length / 2;
  const double left = tree_sum_of(values, first, half);
  if (first + half >= values.size()) return left;
  return left + tree_sum_of(values, first + half, half);
}

}  // namespace

GroupRange groups_of_rank(uint64_t groups, int rank, int ranks) {
  NIBBLE_CHECK(0 <= rank && rank < ranks, "rank out of range");
  const auto parts = static_cast<uint64_t>(ranks);
  const auto bound = [&](uint64_t part) { return groups / parts * part + groups % parts * part / parts; };
  return {bound(static_cast<uint64_t>(rank)), bound(static_cast<uint64_t>(rank) + 1)};
}

int rank_of_group(uint64_t group, uint64_t groups, int ranks) {
  NIBBLE_CHECK(group < groups, "group of the gradient sum");
  int rank = 0;
  while (groups_of_rank(groups, rank, ranks).end <= group) ++rank;
  return rank;
}

double tree_sum(std::span<const double> values) {
  if (values.empty()) return 0;
  uint64_t length = 1;
  while (length < values.size()) length *= 2;
  return tree_sum_of(values, 0, length);
}

struct TreeReduction::State {
  Communicator& communicator;
  const Partition partition;
  const uint64_t groups;
  const GroupRange local;
  std::vector<RankNodes> ranks;  // of every rank
  std::vector<float*> buffers;   // [partition.elements()] each
  std::vector<float*> free;
  float* shards = nullptr;  // several ranks: [nodes of all ranks][elements of this rank's shard]
  NodeStack<float*> stack;
  uint64_t next_group;
  float* leaf = nullptr;

  State(Arena& arena, Communicator& all_ranks, const Partition& shards_of_ranks, uint64_t all_groups)
      : communicator(all_ranks),
        partition(shards_of_ranks),
        groups(all_groups),
        local(groups_of_rank(all_groups, all_ranks.rank(), all_ranks.size())),
        stack(all_groups),
        next_group(local.begin) {
    size_t nodes = 0;
    for (int rank = 0; rank < communicator.size(); ++rank) {
      ranks.push_back(nodes_of_rank(groups, groups_of_rank(groups, rank, communicator.size())));
      nodes += ranks.back().nodes.size();
    }
    const size_t bytes = checked_multiply(partition.elements(), sizeof(float));
    for (size_t i = 0; i < own().buffers; ++i) buffers.push_back(static_cast<float*>(arena.allocate(bytes)));
    if (communicator.size() > 1) {
      shards = static_cast<float*>(arena.allocate(checked_multiply(nodes * shard_count(), sizeof(float))));
    }
    restart();
  }

  const RankNodes& own() const { return ranks[static_cast<size_t>(communicator.rank())]; }
  uint64_t shard_count() const { return partition.count(communicator.rank()); }

  void restart() {
    stack.clear();
    free = buffers;
    next_group = local.begin;
  }

  // Node k of every rank that has one goes round in one all-to-all, straight from the partial sums. Returns the parts
  // of this rank's shard, [rank][node].
  std::vector<std::vector<float*>> exchange() {
    std::vector<std::vector<float*>> parts(ranks.size());
    size_t rounds = 0;
    for (const RankNodes& rank : ranks) rounds = std::max(rounds, rank.nodes.size());
    float* next = shards;
    std::vector<uint64_t> receive_offsets(ranks.size() + 1);
    for (size_t round = 0; round < rounds; ++round) {
      float* const base = next;
      for (size_t rank = 0; rank < ranks.size(); ++rank) {
        if (round < ranks[rank].nodes.size()) {
          parts[rank].push_back(next);
          next += shard_count();
        }
        receive_offsets[rank + 1] = static_cast<uint64_t>(next - base) * sizeof(float);
      }
      const bool sends = round < stack.nodes().size();
      const std::vector<uint64_t> send_offsets =
          sends ? partition.byte_offsets(sizeof(float)) : std::vector<uint64_t>(ranks.size() + 1);
      const std::span<const float> sent(sends ? stack.nodes()[round].value : nullptr, sends ? partition.elements() : 0);
      communicator.all_to_all(std::as_bytes(sent), send_offsets,
                              std::as_writable_bytes(std::span<float>(base, static_cast<size_t>(next - base))),
                              receive_offsets);
    }
    return parts;
  }

  float* fold(const std::vector<std::vector<float*>>& parts) {
    NodeStack<float*> all(groups);
    for (size_t rank = 0; rank < ranks.size(); ++rank) {
      for (size_t i = 0; i < ranks[rank].nodes.size(); ++i) {
        const Node<Nothing>& node = ranks[rank].nodes[i];
        all.push({node.first, node.length, parts[rank][i]},
                 [&](float* left, float* right) { add(left, right, shard_count()); });
      }
    }
    NIBBLE_CHECK(all.nodes().size() == 1, "the tree has one root");
    return all.nodes().front().value;
  }
};

TreeReduction::TreeReduction(Arena& arena, Communicator& communicator, const Partition& partition, uint64_t groups) {
  NIBBLE_CHECK(groups >= 1, "a step has at least one group of micro-batches");
  NIBBLE_CHECK(partition.ranks() == communicator.size(), "the partition is for another number of ranks");
  state_ = std::make_unique<State>(arena, communicator, partition, groups);
}

TreeReduction::~TreeReduction() = default;

GroupRange TreeReduction::local_groups() const {
  return state_->local;
}

std::span<float> TreeReduction::begin_group() {
  const ProfileScope scope(OperatorFamily::reduction, "begin_group");
  State& state = *state_;
  NIBBLE_CHECK(state.leaf == nullptr, "the group before has not ended");
  NIBBLE_CHECK(state.next_group < state.local.end, "all groups of this rank are done");
  state.leaf = state.free.back();
  state.free.pop_back();
  parallel_for(state.partition.elements(), elements_at_once,
               [&](size_t begin, size_t end) { std::memset(state.leaf + begin, 0, (end - begin) * sizeof(float)); });
  return {state.leaf, state.partition.elements()};
}

void TreeReduction::end_group() {
  const ProfileScope scope(OperatorFamily::reduction, "end_group");
  State& state = *state_;
  NIBBLE_CHECK(state.leaf != nullptr, "no group has begun");
  state.stack.push({state.next_group, 1, state.leaf}, [&](float* left, float* right) {
    add(left, right, state.partition.elements());
    state.free.push_back(right);
  });
  state.leaf = nullptr;
  ++state.next_group;
}

std::span<float> TreeReduction::reduce_scatter() {
  const ProfileScope scope(OperatorFamily::reduction, "reduce_scatter");
  State& state = *state_;
  NIBBLE_CHECK(state.leaf == nullptr && state.next_group == state.local.end, "groups are missing");
  float* shard = nullptr;
  if (state.communicator.size() == 1) {
    NIBBLE_CHECK(state.stack.nodes().size() == 1, "the tree has one root");
    shard = state.stack.nodes().front().value;
  } else {
    shard = state.fold(state.exchange());
  }
  state.restart();
  return {shard, state.shard_count()};
}

}  // namespace nibble
