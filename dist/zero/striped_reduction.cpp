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
  // A micro-batch's gradient in memory that this rank can read: all of it, or one piece of this rank's shard after the
  // other.
  struct Arrival {
    uint64_t micro_batch = 0;
    const float* whole = nullptr;
    const float* piece = nullptr;
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
  const uint64_t largest_piece;  // elements
  const Machines machines;
  const size_t here;                       // this rank's machine
  float* gradient = nullptr;               // [elements], of this lane's micro-batch
  std::byte* shards = nullptr;             // [buffers of `sums`], each of this rank's shard
  float* received = nullptr;               // [lanes of other machines][elements of this rank's largest piece]
  std::vector<std::byte*> addresses;       // of the gradients of the lanes of this machine, once they are known
  size_t stride;                           // bytes from one shard to the next
  std::vector<std::vector<Range>> pieces;  // [ranks]: ranges that each owns, in the order of its shard
  size_t rounds = 0;                       // the most pieces of a rank
  RankSums sums;
  size_t leaf = 0;    // buffer of the open group
  uint64_t slot = 0;  // the open slot, or the next one
  bool open = false;

  State(Arena& arena, SharedArena* memory, Communicator& all_ranks, const Placement& all_owned, const Schedule& lanes,
        uint64_t piece_elements)
      : communicator(all_ranks),
        shared(memory),
        device(arena.device()),
        elements(all_owned.layout().elements()),
        owned(all_owned),
        schedule(lanes),
        largest_piece(piece_elements),
        machines(memory, all_ranks.size()),
        here(machines.of(all_ranks.rank())),
        stride(round_up(checked_multiply(shard_count(), sizeof(float)),
                        uint64_t{device == DeviceKind::cpu ? Arena::alignment : Arena::cuda_alignment})),
        sums(groups().count()) {
    cut_into_pieces();
    if (schedule.micro_batches(communicator.rank()) > 0) {
      gradient = static_cast<float*>(arena.allocate(checked_multiply(elements, sizeof(float))));
    }
    const size_t buffers = sums_of_range(groups().count(), 0, groups().count()).buffers();
    shards = static_cast<std::byte*>(arena.allocate(checked_multiply(buffers, stride)));
    size_t elsewhere = 0;
    for (int lane = 0; lane < schedule.lanes(); ++lane) {
      if (machines.of(lane) != here && schedule.micro_batches(lane) > 0) ++elsewhere;
    }
    const uint64_t of_lane = std::min(largest_piece, shard_count());
    received = static_cast<float*>(arena.allocate(checked_multiply(elsewhere, of_lane * sizeof(float))));
  }

  // Nothing is gained by pieces where nothing travels.
  void cut_into_pieces() {
    const uint64_t most = machines.count() > 1 ? largest_piece : elements;
    for (int rank = 0; rank < communicator.size(); ++rank) {
      std::vector<Range>& of_rank = pieces.emplace_back();
      for (const Range& range : owned.ranges(rank)) {
        for (uint64_t begin = range.begin; begin < range.end; begin += most) {
          of_rank.push_back({begin, std::min(begin + most, range.end)});
        }
      }
      rounds = std::max(rounds, of_rank.size());
    }
  }
  // Returns an empty range behind a rank's last piece.
  Range piece(int rank, size_t index) const {
    const std::vector<Range>& of_rank = pieces[static_cast<size_t>(rank)];
    return index < of_rank.size() ? of_rank[index] : Range{};
  }

  const MicroBatchGroups& groups() const { return schedule.groups(); }
  uint64_t shard_count() const { return owned.elements(communicator.rank()); }
  float* shard(size_t index) const { return reinterpret_cast<float*>(shards + index * stride); }
  float* received_piece(size_t lane) const { return received + lane * std::min(largest_piece, shard_count()); }
  bool shares() const { return shared != nullptr && machines.count() < static_cast<size_t>(communicator.size()); }
  std::optional<uint64_t> micro_batch() const { return schedule.micro_batch(slot, communicator.rank()); }

  // Returns when the gradients of this machine's lanes are complete.
  void meet() {
    if (shares() && addresses.empty()) {
      addresses = shared->meet(gradient);
    } else if (shares()) {
      shared->meet();
    }
  }

  // Returns where the slot's gradients will be, in ascending order of micro-batches.
  std::vector<Arrival> arrivals() const {
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
        result.push_back({.micro_batch = *number, .piece = received_piece(elsewhere++)});
      }
    }
    return result;
  }

  // Sends piece `index` of every shard of other machines, of this lane's gradient, and receives that of this rank's
  // shard, of the gradients of their lanes.
  void exchange(size_t index) const {
    const Range own = piece(communicator.rank(), index);
    std::vector<std::span<const std::byte>> send(static_cast<size_t>(communicator.size()));
    std::vector<std::span<std::byte>> receive(send.size());
    size_t elsewhere = 0;
    for (int rank = 0; rank < communicator.size(); ++rank) {
      if (machines.of(rank) == here) continue;
      const auto peer = static_cast<size_t>(rank);
      const Range theirs = piece(rank, index);
      if (micro_batch()) send[peer] = std::as_bytes(std::span(gradient + theirs.begin, theirs.count()));
      if (schedule.micro_batch(slot, rank)) {
        receive[peer] = std::as_writable_bytes(std::span(received_piece(elsewhere++), own.count()));
      }
    }
    communicator.exchange(send, receive);
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
    meet();
    const std::vector<Arrival> arrived = arrivals();
    const std::vector<Operation> all = operations(arrived);
    uint64_t at = 0;  // of the piece in this rank's shard
    for (size_t index = 0; index < rounds; ++index) {
      if (machines.count() > 1) exchange(index);
      const Range range = piece(communicator.rank(), index);
      std::vector<FoldStep> steps;
      for (const Operation& operation : all) {
        const Arrival& arrival = arrived[operation.arrival];
        const float* right = arrival.whole != nullptr ? arrival.whole + range.begin : arrival.piece;
        if (operation.buffer) right = shard(*operation.buffer) + at;
        steps.push_back({.left = shard(operation.left) + at, .right = right, .assigns = operation.assigns});
      }
      if (!range.empty()) run_steps(steps, range.count(), device);
      at += range.count();
    }
    if (shares()) shared->meet();  // nobody clears a gradient before every owner has read it
  }
};

StripedReduction::StripedReduction(Arena& arena, Communicator& communicator, const Placement& owned,
                                   const Schedule& schedule, uint64_t piece)
    : state_(std::make_unique<State>(arena, nullptr, communicator, owned, checked(schedule, communicator, owned),
                                     piece)) {}

StripedReduction::StripedReduction(SharedArena& memory, Communicator& communicator, const Placement& owned,
                                   const Schedule& schedule, uint64_t piece)
    : state_(std::make_unique<State>(memory.arena(), &memory, communicator, owned,
                                     checked(schedule, communicator, owned), piece)) {}

StripedReduction::~StripedReduction() = default;

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
