#include "dist/zero/tree_reduction.h"

#include <algorithm>
#include <numeric>
#include <optional>

#include "dist/base/error.h"
#include "dist/device/profile.h"
#include "dist/zero/fold.h"
#include "dist/zero/reduction_tree.h"

namespace nibble {
namespace {

double tree_sum_of(std::span<const double> values, uint64_t first, uint64_t length) {
  if (length == 1) return values[first];
  const uint64_t half = length / 2;
  const double left = tree_sum_of(values, first, half);
  if (first + half >= values.size()) return left;
  return left + tree_sum_of(values, first + half, half);
}

const Placement& checked(const Placement& owned, const Communicator& communicator, const Schedule& schedule) {
  NIBBLE_CHECK(schedule.order() == Schedule::Order::rows, "ranks have whole groups");
  NIBBLE_CHECK(schedule.lanes() == communicator.size(), "every rank is a lane");
  NIBBLE_CHECK(owned.ranks() == communicator.size(), "the placement is for another number of ranks");
  return owned;
}

std::vector<std::vector<Range>> ranges_of(const Placement& placement) {
  std::vector<std::vector<Range>> ranges;
  for (int rank = 0; rank < placement.ranks(); ++rank) ranges.push_back(placement.ranges(rank));
  return ranges;
}

}  // namespace

double tree_sum(std::span<const double> values) {
  if (values.empty()) return 0;
  uint64_t length = 1;
  while (length < values.size()) length *= 2;
  return tree_sum_of(values, 0, length);
}

double sum_by_groups(const MicroBatchGroups& groups, std::span<const double> values) {
  NIBBLE_CHECK(values.size() == groups.micro_batches(), "one value a micro-batch");
  std::vector<double> of_groups(groups.count());
  for (uint64_t group = 0; group < groups.count(); ++group) {
    for (uint64_t i = groups.first(group); i < groups.first(group + 1); ++i) of_groups[group] += values[i];
  }
  return tree_sum(of_groups);
}

struct TreeReduction::State {
  // The partial sums of all ranks of a machine, and the nodes to which they are folded before they leave it.
  struct MachineFold {
    std::vector<TreeNode> nodes;  // value: the buffer
    std::vector<int> ranks;       // the rank that holds each node
    Fold fold;
  };

  Communicator& communicator;
  SharedArena* const shared;                     // null: every rank is a machine of its own
  const DeviceKind device;                       // device of all buffers
  const uint64_t elements;                       // of a whole buffer
  const std::vector<std::vector<Range>> ranges;  // [ranks]: what each rank owns, in the order of its shard
  const Schedule schedule;
  const uint64_t groups;
  const Machines machines;
  const size_t here;    // this rank's machine
  const size_t stride;  // bytes from one buffer to the next
  std::vector<MachineFold> machine_folds;
  OnePassFold last;  // folds this machine's partial sums and the roots of the other machines, in ascending order
  std::vector<size_t> order;     // indices into these two lists, one after the other
  std::byte* buffers = nullptr;  // this rank's partial sums
  float* received = nullptr;     // [roots of the other machines][elements of this rank's shard]
  float* spare = nullptr;        // [elements of this rank's shard], where the rank has no groups
  RankSums sums;
  uint64_t slot = 0;  // the open slot, or the next one
  bool open = false;
  std::optional<size_t> leaf;  // buffer of the open group

  State(Arena& arena, SharedArena* memory, Communicator& all_ranks, const Placement& owned, const Schedule& lanes)
      : communicator(all_ranks),
        shared(memory),
        device(arena.device()),
        elements(owned.layout().elements()),
        ranges(ranges_of(owned)),
        schedule(lanes),
        groups(lanes.groups().count()),
        machines(memory, all_ranks.size()),
        here(machines.of(all_ranks.rank())),
        stride(round_up(checked_multiply(owned.layout().elements(), sizeof(float)),
                        uint64_t{device == DeviceKind::cpu ? Arena::alignment : Arena::cuda_alignment})),
        sums(groups) {
    for (size_t machine = 0; machine < machines.count(); ++machine) machine_folds.push_back(machine_fold_of(machine));
    const size_t elsewhere = choose_last_fold();
    const GroupRange local = schedule.groups_of(communicator.rank());
    const size_t own = sums_of_range(groups, local.begin, local.end).buffers();
    const size_t shard_bytes = checked_multiply(shard_count(), sizeof(float));
    buffers = static_cast<std::byte*>(arena.allocate(checked_multiply(own, stride)));
    received = static_cast<float*>(arena.allocate(checked_multiply(elsewhere, shard_bytes)));
    if (own == 0 || own_ranges().size() > 1) spare = static_cast<float*>(arena.allocate(shard_bytes));
  }

  MachineFold machine_fold_of(size_t machine) const {
    MachineFold machine_fold;
    for (const int rank : machines.ranks(machine)) {
      const GroupRange range = schedule.groups_of(rank);
      const RankSums rank_sums = sums_of_range(groups, range.begin, range.end);
      for (const TreeNode& node : rank_sums.nodes()) {
        machine_fold.nodes.push_back(node);
        machine_fold.ranks.push_back(rank);
      }
    }
    machine_fold.fold = fold_of(groups, machine_fold.nodes);
    return machine_fold;
  }

  // Chooses the fold of `last`. Returns how many roots come from other machines.
  size_t choose_last_fold() {
    std::vector<TreeNode> nodes = machine_folds[here].nodes;
    for (size_t machine = 0; machine < machine_folds.size(); ++machine) {
      const std::vector<TreeNode>& roots = machine_folds[machine].fold.roots;
      if (machine != here) nodes.insert(nodes.end(), roots.begin(), roots.end());
    }
    order.resize(nodes.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::ranges::sort(order, {}, [&](size_t i) { return nodes[i].first; });
    std::vector<TreeNode> ascending;
    for (const size_t i : order) ascending.push_back(nodes[i]);
    last = OnePassFold(fold_of(groups, ascending), ascending.size());
    return nodes.size() - machine_folds[here].nodes.size();
  }

  const std::vector<Range>& own_ranges() const { return ranges[static_cast<size_t>(communicator.rank())]; }
  uint64_t shard_count() const {
    uint64_t count = 0;
    for (const Range& range : own_ranges()) count += range.count();
    return count;
  }
  float* buffer(std::byte* of_rank, size_t index) const { return reinterpret_cast<float*>(of_rank + index * stride); }
  float* buffer(size_t index) const { return buffer(buffers, index); }
  std::optional<uint64_t> micro_batch() const { return schedule.micro_batch(slot, communicator.rank()); }
  bool shares() const { return shared != nullptr && machines.count() < static_cast<size_t>(communicator.size()); }

  // Returns this machine's partial sums [nodes], once they are complete.
  std::vector<float*> partial_sums() const {
    std::vector<std::byte*> addresses(static_cast<size_t>(communicator.size()));
    addresses[static_cast<size_t>(communicator.rank())] = buffers;
    if (shares()) addresses = shared->meet(machine_folds[here].nodes.empty() ? nullptr : buffers);
    std::vector<float*> result;
    for (size_t i = 0; i < machine_folds[here].nodes.size(); ++i) {
      result.push_back(
          buffer(addresses[static_cast<size_t>(machine_folds[here].ranks[i])], machine_folds[here].nodes[i].value));
    }
    return result;
  }

  // Folds this rank's share of the shards that belong to ranks of other machines, in place.
  void fold_for_others(const std::vector<float*>& partial) const {
    for (int rank = 0; rank < communicator.size(); ++rank) {
      if (machines.of(rank) == here || machines.deputy(here, rank) != communicator.rank()) continue;
      for (const auto& [left, right] : machine_folds[here].fold.joins) {
        for (const Range& range : ranges[static_cast<size_t>(rank)]) {
          add(partial[left] + range.begin, partial[right] + range.begin, range.count(), device);
        }
      }
    }
  }

  // Exchanges root k of every machine that has one in exchange k, one range of the shards after the other. Returns the
  // roots of the other machines for this rank's shard, machine by machine.
  std::vector<float*> exchange(const std::vector<float*>& partial) const {
    size_t rounds = 0;
    for (const MachineFold& machine_fold : machine_folds) rounds = std::max(rounds, machine_fold.fold.roots.size());
    std::vector<size_t> first(machine_folds.size());  // index of each machine's first root among those received
    size_t count = 0;
    for (size_t machine = 0; machine < machine_folds.size(); ++machine) {
      first[machine] = count;
      if (machine != here) count += machine_folds[machine].fold.roots.size();
    }
    size_t most_ranges = 0;
    for (const std::vector<Range>& of_rank : ranges) most_ranges = std::max(most_ranges, of_rank.size());
    for (size_t round = 0; round < rounds; ++round) {
      uint64_t at = 0;  // of the range in this rank's shard
      for (size_t index = 0; index < most_ranges; ++index) {
        exchange_range(partial, first, round, index, at);
        if (index < own_ranges().size()) at += own_ranges()[index].count();
      }
    }
    std::vector<float*> roots;
    for (size_t root = 0; root < count; ++root) roots.push_back(received + root * shard_count());
    return roots;
  }

  void exchange_range(const std::vector<float*>& partial, const std::vector<size_t>& first, size_t round, size_t index,
                      uint64_t at) const {
    const auto ranks = static_cast<size_t>(communicator.size());
    std::vector<std::span<const std::byte>> send(ranks);
    std::vector<std::span<std::byte>> receive(ranks);
    for (int rank = 0; rank < communicator.size(); ++rank) {
      const size_t machine = machines.of(rank);
      if (machine == here) continue;
      const auto peer = static_cast<size_t>(rank);
      if (round < machine_folds[here].fold.roots.size() && machines.deputy(here, rank) == communicator.rank() &&
          index < ranges[peer].size()) {
        const Range range = ranges[peer][index];
        const float* const root = partial[machine_folds[here].fold.roots[round].value];
        send[peer] = std::as_bytes(std::span(root + range.begin, range.count()));
      }
      if (round < machine_folds[machine].fold.roots.size() && machines.deputy(machine, communicator.rank()) == rank &&
          index < own_ranges().size()) {
        float* const root = received + (first[machine] + round) * shard_count();
        receive[peer] = std::as_writable_bytes(std::span(root + at, own_ranges()[index].count()));
      }
    }
    communicator.exchange(send, receive);
  }

  std::span<float> reduce_scatter() {
    const std::vector<float*> partial = partial_sums();
    std::vector<float*> elsewhere;
    if (machines.count() > 1) {
      fold_for_others(partial);
      elsewhere = exchange(partial);
    }
    // The result is in this rank's own memory, where its next group begins when it has used the shard.
    const uint64_t first = own_ranges().empty() ? 0 : own_ranges().front().begin;
    float* const shard = spare != nullptr ? spare : buffer(sums.nodes().front().value) + first;
    uint64_t at = 0;
    for (const Range& range : own_ranges()) {
      std::vector<const float*> values;
      for (const size_t i : order) {
        values.push_back(i < partial.size() ? partial[i] + range.begin : elsewhere[i - partial.size()] + at);
      }
      last.run(values, shard + at, range.count(), device);
      at += range.count();
    }
    if (shares()) shared->meet();  // nobody begins a group before every rank has read
    sums = RankSums(groups);
    slot = 0;
    return {shard, shard_count()};
  }
};

TreeReduction::TreeReduction(Arena& arena, Communicator& communicator, const Placement& owned, const Schedule& schedule)
    : state_(std::make_unique<State>(arena, nullptr, communicator, checked(owned, communicator, schedule), schedule)) {}

TreeReduction::TreeReduction(SharedArena& memory, Communicator& communicator, const Placement& owned,
                             const Schedule& schedule)
    : state_(std::make_unique<State>(memory.arena(), &memory, communicator, checked(owned, communicator, schedule),
                                     schedule)) {}

TreeReduction::~TreeReduction() = default;

std::span<float> TreeReduction::begin_slot() {
  const ProfileScope scope(OperatorFamily::reduction, "begin_slot");
  State& state = *state_;
  NIBBLE_CHECK(!state.open, "the slot before has not ended");
  NIBBLE_CHECK(state.slot < state.schedule.slots(), "all slots are done");
  state.open = true;
  const std::optional<uint64_t> micro_batch = state.micro_batch();
  if (!micro_batch) return {};
  if (state.schedule.groups().begins_group(*micro_batch)) {
    state.leaf = state.sums.take();
    clear(state.buffer(*state.leaf), state.elements, state.device);
  }
  return {state.buffer(*state.leaf), state.elements};
}

void TreeReduction::end_slot() {
  const ProfileScope scope(OperatorFamily::reduction, "end_slot");
  State& state = *state_;
  NIBBLE_CHECK(state.open, "no slot has begun");
  const std::optional<uint64_t> micro_batch = state.micro_batch();
  if (micro_batch && state.schedule.groups().ends_group(*micro_batch)) {
    state.sums.push(state.schedule.groups().group_of(*micro_batch), *state.leaf, [&](size_t left, size_t right) {
      add(state.buffer(left), state.buffer(right), state.elements, state.device);
    });
    state.leaf.reset();
  }
  state.open = false;
  ++state.slot;
}

std::span<float> TreeReduction::reduce_scatter() {
  const ProfileScope scope(OperatorFamily::reduction, "reduce_scatter");
  NIBBLE_CHECK(!state_->open && state_->slot == state_->schedule.slots(), "slots are missing");
  return state_->reduce_scatter();
}

}  // namespace nibble
