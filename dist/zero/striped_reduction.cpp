#include "dist/zero/striped_reduction.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "dist/base/error.h"
#include "dist/device/profile.h"
#include "dist/zero/fold.h"
#include "dist/zero/reduction_tree.h"

namespace nibble {
namespace {

const Schedule& checked(const Schedule& schedule, const Communicator& communicator, const Placement& owned) {
  NIBBLE_CHECK(schedule.order() == Schedule::Order::stripes, "ranks have micro-batches that are dealt out");
  NIBBLE_CHECK(schedule.lanes() == communicator.size(), "every rank is a lane");
  NIBBLE_CHECK(owned.ranks() == communicator.size(), "the placement is for another number of ranks");
  return schedule;
}

}  // namespace

struct StripedReduction::State {
  // A micro-batch's gradient in memory that this rank can read: all of it, or the slices of this rank's shard.
  struct Arrival {
    uint64_t micro_batch = 0;
    const float* whole = nullptr;
    const float* shard = nullptr;
  };
  // What happens in a slot to the buffers of this rank's shard: left = the arrival, left += the arrival, or
  // left += another buffer.
  struct Operation {
    size_t left = 0;
    std::optional<size_t> buffer;
    size_t arrival = 0;
    bool assigns = false;
  };

  Communicator& communicator;
  SharedArena* const shared;  // null: every rank is a machine of its own
  const DeviceKind device;    // of all buffers
  const uint64_t elements;
  const Placement& owned;
  const Schedule schedule;
  const Machines machines;
  const size_t here;                  // this rank's machine
  float* gradient = nullptr;          // [elements], of this lane's micro-batch
  std::byte* shards = nullptr;        // [buffers of `sums`], each of this rank's shard
  std::byte* received = nullptr;      // [lanes of other machines], each of this rank's shard
  std::vector<std::byte*> addresses;  // of the gradients of the lanes of this machine, once they are known
  size_t stride;                      // bytes from one shard to the next
  RankSums sums;
  size_t leaf = 0;    // buffer of the open group
  uint64_t slot = 0;  // the open slot, or the next one
  bool open = false;

  State(Arena& arena, SharedArena* memory, Communicator& all_ranks, const Placement& all_owned, const Schedule& lanes)
      : communicator(all_ranks),
        shared(memory),
        device(arena.device()),
        elements(all_owned.layout().elements()),
        owned(all_owned),
        schedule(lanes),
        machines(memory, all_ranks.size()),
        here(machines.of(all_ranks.rank())),
        stride(round_up(checked_multiply(shard_count(), sizeof(float)),
                        uint64_t{device == DeviceKind::cpu ? Arena::alignment : Arena::cuda_alignment})),
        sums(groups().count()) {
    if (schedule.micro_batches(communicator.rank()) > 0) {
      gradient = static_cast<float*>(arena.allocate(checked_multiply(elements, sizeof(float))));
    }
    const size_t buffers = sums_of_range(groups().count(), 0, groups().count()).buffers();
    shards = static_cast<std::byte*>(arena.allocate(checked_multiply(buffers, stride)));
    size_t elsewhere = 0;
    for (int lane = 0; lane < schedule.lanes(); ++lane) {
      if (machines.of(lane) != here && schedule.micro_batches(lane) > 0) ++elsewhere;
    }
    received = static_cast<std::byte*>(arena.allocate(checked_multiply(elsewhere, stride)));
  }

  const MicroBatchGroups& groups() const { return schedule.groups(); }
  const std::vector<Range>& ranges(int rank) const { return owned.ranges(rank); }
  uint64_t shard_count() const { return owned.elements(communicator.rank()); }
  float* shard(size_t index) const { return reinterpret_cast<float*>(shards + index * stride); }
  float* received_shard(size_t index) const { return reinterpret_cast<float*>(received + index * stride); }
  bool shares() const { return shared != nullptr && machines.count() < static_cast<size_t>(communicator.size()); }
  std::optional<uint64_t> micro_batch() const { return schedule.micro_batch(slot, communicator.rank()); }

  // Returns the slot's gradients in ascending order of micro-batches, once they are complete.
  std::vector<Arrival> arrivals() {
    if (shares() && addresses.empty()) {
      addresses = shared->meet(gradient);
    } else if (shares()) {
      shared->meet();
    }
    if (machines.count() > 1) exchange();
    std::vector<Arrival> result;
    size_t elsewhere = 0;
    for (int lane = 0; lane < schedule.lanes(); ++lane) {
      const std::optional<uint64_t> number = schedule.micro_batch(slot, lane);
      if (!number) continue;
      if (lane == communicator.rank()) {
        result.push_back({.micro_batch = *number, .whole = gradient});
      } else if (machines.of(lane) == here) {
        const std::byte* const address = addresses[static_cast<size_t>(lane)];
        result.push_back({.micro_batch = *number, .whole = reinterpret_cast<const float*>(address)});
      } else {
        result.push_back({.micro_batch = *number, .shard = received_shard(elsewhere++)});
      }
    }
    return result;
  }

  // Sends the slices of this lane's gradient to their owners on other machines, one range of the shards after the
  // other.
  void exchange() const {
    size_t most_ranges = 0;
    for (int rank = 0; rank < communicator.size(); ++rank) most_ranges = std::max(most_ranges, ranges(rank).size());
    uint64_t at = 0;  // of the range in this rank's shard
    for (size_t index = 0; index < most_ranges; ++index) {
      const bool owns = index < ranges(communicator.rank()).size();
      const uint64_t count = owns ? ranges(communicator.rank())[index].count() : 0;
      std::vector<std::span<const std::byte>> send(static_cast<size_t>(communicator.size()));
      std::vector<std::span<std::byte>> receive(send.size());
      size_t elsewhere = 0;
      for (int rank = 0; rank < communicator.size(); ++rank) {
        if (machines.of(rank) == here) continue;
        const auto peer = static_cast<size_t>(rank);
        if (micro_batch() && index < ranges(rank).size()) {
          const Range range = ranges(rank)[index];
          send[peer] = std::as_bytes(std::span(gradient + range.begin, range.count()));
        }
        if (schedule.micro_batch(slot, rank)) {
          receive[peer] = std::as_writable_bytes(std::span(received_shard(elsewhere++) + at, count));
        }
      }
      communicator.exchange(send, receive);
      at += count;
    }
  }

  // Decides what the owner does with these arrivals, in order.
  std::vector<Operation> operations(const std::vector<Arrival>& arrived) {
    std::vector<Operation> result;
    for (size_t i = 0; i < arrived.size(); ++i) {
      const uint64_t number = arrived[i].micro_batch;
      const bool begins = groups().begins_group(number);
      if (begins) leaf = sums.take();
      result.push_back({.left = leaf, .buffer = std::nullopt, .arrival = i, .assigns = begins});
      if (!groups().ends_group(number)) continue;
      sums.push(groups().group_of(number), leaf,
                [&](size_t left, size_t right) { result.push_back({.left = left, .buffer = right}); });
    }
    return result;
  }

  void add_slot() {
    const std::vector<Arrival> arrived = arrivals();
    const std::vector<Operation> all = operations(arrived);
    uint64_t at = 0;  // of the range in this rank's shard
    for (const Range& range : ranges(communicator.rank())) {
      std::vector<FoldStep> steps;
      for (const Operation& operation : all) {
        const Arrival& arrival = arrived[operation.arrival];
        const float* right = arrival.whole != nullptr ? arrival.whole + range.begin : arrival.shard + at;
        if (operation.buffer) right = shard(*operation.buffer) + at;
        steps.push_back({.left = shard(operation.left) + at, .right = right, .assigns = operation.assigns});
      }
      run_steps(steps, range.count(), device);
      at += range.count();
    }
    if (shares()) shared->meet();  // nobody clears a gradient before every owner has read it
  }
};

StripedReduction::StripedReduction(Arena& arena, Communicator& communicator, const Placement& owned,
                                   const Schedule& schedule)
    : state_(std::make_unique<State>(arena, nullptr, communicator, owned, checked(schedule, communicator, owned))) {}

StripedReduction::StripedReduction(SharedArena& memory, Communicator& communicator, const Placement& owned,
                                   const Schedule& schedule)
    : state_(std::make_unique<State>(memory.arena(), &memory, communicator, owned,
                                     checked(schedule, communicator, owned))) {}

StripedReduction::~StripedReduction() = default;

bool StripedReduction::exchanges_in_slots() const {
  return state_->communicator.size() > 1;
}

std::span<float> StripedReduction::begin_slot() {
  const ProfileScope scope(OperatorFamily::reduction, "begin_slot");
  State& state = *state_;
  NIBBLE_CHECK(!state.open, "the slot before has not ended");
  NIBBLE_CHECK(state.slot < state.schedule.slots(), "all slots are done");
  state.open = true;
  if (!state.micro_batch()) return {};
  clear(state.gradient, state.elements, state.device);
  return {state.gradient, state.elements};
}

void StripedReduction::end_slot() {
  const ProfileScope scope(OperatorFamily::reduction, "end_slot");
  NIBBLE_CHECK(state_->open, "no slot has begun");
  state_->add_slot();
  state_->open = false;
  ++state_->slot;
}

std::span<float> StripedReduction::reduce_scatter() {
  State& state = *state_;
  NIBBLE_CHECK(!state.open && state.slot == state.schedule.slots(), "slots are missing");
  NIBBLE_CHECK(state.sums.nodes().size() == 1, "the tree has one root");
  float* const sum = state.shard(state.sums.nodes().front().value);
  state.sums = RankSums(state.groups().count());
  state.slot = 0;
  return {sum, state.shard_count()};
}

}  // namespace nibble
