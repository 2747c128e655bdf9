#include "dist/zero/schedule.h"

#include <algorithm>

#include "dist/base/error.h"
#include "dist/zero/layout.h"

namespace nibble {

MicroBatchGroups MicroBatchGroups::of_count(uint64_t micro_batches, uint64_t groups) {
  NIBBLE_CHECK(micro_batches >= 1 && groups >= 1, "a step has at least one group of micro-batches");
  const uint64_t count = std::min(micro_batches, groups);
  std::vector<uint64_t> bounds;
  for (uint64_t group = 0; group <= count; ++group) bounds.push_back(part_boundary(micro_batches, count, group));
  return MicroBatchGroups(std::move(bounds));
}

MicroBatchGroups MicroBatchGroups::of_size(uint64_t micro_batches, uint64_t size) {
  NIBBLE_CHECK(micro_batches >= 1 && size >= 1, "a group has at least one micro-batch");
  std::vector<uint64_t> bounds;
  for (uint64_t first = 0; first < micro_batches; first += std::min(size, micro_batches)) bounds.push_back(first);
  bounds.push_back(micro_batches);
  return MicroBatchGroups(std::move(bounds));
}

uint64_t MicroBatchGroups::group_of(uint64_t micro_batch) const {
  NIBBLE_CHECK(micro_batch < micro_batches(), "micro-batch of the step");
  return static_cast<uint64_t>(std::ranges::upper_bound(bounds_, micro_batch) - bounds_.begin()) - 1;
}

Schedule::Schedule(MicroBatchGroups groups, int lanes, Order order)
    : groups_(std::move(groups)), lanes_(lanes), order_(order), slots_(0) {
  NIBBLE_CHECK(lanes >= 1, "a step has at least one lane");
  for (int lane = 0; lane < lanes; ++lane) slots_ = std::max(slots_, micro_batches(lane));
}

uint64_t Schedule::micro_batches(int lane) const {
  if (order_ == Order::rows) {
    const GroupRange range = groups_of(lane);
    return groups_.first(range.end) - groups_.first(range.begin);
  }
  const uint64_t before = groups_.micro_batches() / static_cast<uint64_t>(lanes_);
  return before + (static_cast<uint64_t>(lane) < groups_.micro_batches() % static_cast<uint64_t>(lanes_) ? 1 : 0);
}

std::optional<uint64_t> Schedule::micro_batch(uint64_t slot, int lane) const {
  if (slot >= micro_batches(lane)) return std::nullopt;
  if (order_ == Order::rows) return groups_.first(groups_of(lane).begin) + slot;
  return slot * static_cast<uint64_t>(lanes_) + static_cast<uint64_t>(lane);
}

int Schedule::lane_of(uint64_t micro_batch) const {
  const uint64_t group = groups_.group_of(micro_batch);
  if (order_ == Order::stripes) return static_cast<int>(micro_batch % static_cast<uint64_t>(lanes_));
  int lane = 0;
  while (groups_of(lane).end <= group) ++lane;
  return lane;
}

int Schedule::working_lanes() const {
  const uint64_t shares = order_ == Order::rows ? groups_.count() : groups_.micro_batches();
  return static_cast<int>(std::min(shares, static_cast<uint64_t>(lanes_)));
}

GroupRange Schedule::groups_of(int lane) const {
  NIBBLE_CHECK(order_ == Order::rows, "in stripes, groups belong to no lane");
  NIBBLE_CHECK(0 <= lane && lane < lanes_, "lane out of range");
  const auto bound = [&](int part) {
    return part_boundary(groups_.count(), static_cast<uint64_t>(lanes_), static_cast<uint64_t>(part));
  };
  return {bound(lane), bound(lane + 1)};
}

}  // namespace nibble
