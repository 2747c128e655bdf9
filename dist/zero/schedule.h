// Who computes which micro-batch of a step. A lane computes one micro-batch at a time; today every rank is a lane. All
// lanes walk a step slot by slot; in a slot a lane computes one micro-batch, or none.
//
// Neither the number of lanes nor the order changes a bit of the gradient's sum: what fixes it are the groups alone
// (law 4, docs/architecture.md).
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "dist/base/enum_names.h"

namespace nibble {

// The micro-batches of a step, cut into groups: group g has micro-batches [first(g), first(g + 1)).
class MicroBatchGroups {
 public:
  // Cuts the micro-batches into so many groups that are about equally long, or into fewer if there are fewer
  // micro-batches.
  static MicroBatchGroups of_count(uint64_t micro_batches, uint64_t groups);
  // Cuts them into groups of so many micro-batches; the last group may have fewer.
  static MicroBatchGroups of_size(uint64_t micro_batches, uint64_t size);

  uint64_t count() const { return bounds_.size() - 1; }
  uint64_t micro_batches() const { return bounds_.back(); }
  uint64_t first(uint64_t group) const { return bounds_.at(group); }
  uint64_t group_of(uint64_t micro_batch) const;
  bool begins_group(uint64_t micro_batch) const { return first(group_of(micro_batch)) == micro_batch; }
  bool ends_group(uint64_t micro_batch) const { return first(group_of(micro_batch) + 1) == micro_batch + 1; }

 private:
  explicit MicroBatchGroups(std::vector<uint64_t> bounds) : bounds_(std::move(bounds)) {}

  std::vector<uint64_t> bounds_;  // [count() + 1]
};

// The groups [begin, end) of a step.
struct GroupRange {
  uint64_t begin = 0;
  uint64_t end = 0;
};

class Schedule {
 public:
  enum class Order : uint8_t {
    rows,    // a lane has whole groups that follow each other, and computes them one micro-batch after the other
    stripes  // micro-batches are dealt out: slot s has micro-batches s * lanes ... s * lanes + lanes - 1, one a lane
  };

  Schedule(MicroBatchGroups groups, int lanes, Order order);

  const MicroBatchGroups& groups() const { return groups_; }
  int lanes() const { return lanes_; }
  Order order() const { return order_; }

  // Returns the number of slots, which is the same for all lanes.
  uint64_t slots() const { return slots_; }
  // Returns how many micro-batches the lane has. They are in its first slots, in ascending order.
  uint64_t micro_batches(int lane) const;
  // Returns the micro-batch of a lane in a slot; nothing if the lane is idle then.
  std::optional<uint64_t> micro_batch(uint64_t slot, int lane) const;
  int lane_of(uint64_t micro_batch) const;
  // Returns how many lanes have a micro-batch.
  int working_lanes() const;
  // In rows: the groups of a lane.
  GroupRange groups_of(int lane) const;

 private:
  MicroBatchGroups groups_;
  int lanes_;
  Order order_;
  uint64_t slots_;
};

constexpr auto enum_names(Schedule::Order) {
  using Order = Schedule::Order;
  return std::to_array<EnumName<Order>>({{Order::rows, "rows"}, {Order::stripes, "stripes"}});
}

}  // namespace nibble
