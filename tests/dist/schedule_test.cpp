// Tests of who computes which micro-batch, and of the tree's order of sums.
#include "dist/zero/schedule.h"

#include <gtest/gtest.h>

#include <vector>

#include "dist/base/error.h"
#include "dist/zero/tree_reduction.h"

namespace nibble {
namespace {

using Order = Schedule::Order;

Schedule schedule(uint64_t micro_batches, uint64_t groups, int lanes, Order order) {
  return {MicroBatchGroups::of_count(micro_batches, groups), lanes, order};
}

std::vector<uint64_t> bounds_of(const MicroBatchGroups& groups) {
  std::vector<uint64_t> bounds;
  for (uint64_t group = 0; group <= groups.count(); ++group) bounds.push_back(groups.first(group));
  return bounds;
}

TEST(MicroBatchGroups, CutAStep) {
  using Bounds = std::vector<uint64_t>;
  EXPECT_EQ(bounds_of(MicroBatchGroups::of_count(8, 4)), (Bounds{0, 2, 4, 6, 8}));
  EXPECT_EQ(bounds_of(MicroBatchGroups::of_count(7, 3)), (Bounds{0, 2, 4, 7}));
  EXPECT_EQ(bounds_of(MicroBatchGroups::of_count(2, 8)), (Bounds{0, 1, 2}));
  EXPECT_EQ(bounds_of(MicroBatchGroups::of_size(7, 3)), (Bounds{0, 3, 6, 7}));
  EXPECT_EQ(bounds_of(MicroBatchGroups::of_size(4, 100)), (Bounds{0, 4}));
  const MicroBatchGroups groups = MicroBatchGroups::of_count(7, 3);
  for (uint64_t m = 0; m < 7; ++m) {
    EXPECT_EQ(groups.group_of(m), m < 2 ? 0U : m < 4 ? 1U : 2U);
    EXPECT_EQ(groups.begins_group(m), m == 0 || m == 2 || m == 4);
    EXPECT_EQ(groups.ends_group(m), m == 1 || m == 3 || m == 6);
  }
  EXPECT_THROW(groups.group_of(7), Error);
}

TEST(Schedule, SlotsOfBothOrders) {
  EXPECT_EQ(schedule(24, 8, 5, Order::rows).slots(), 6U);
  EXPECT_EQ(schedule(24, 8, 5, Order::stripes).slots(), 5U);
  EXPECT_EQ(schedule(64, 8, 16, Order::rows).slots(), 8U);
  EXPECT_EQ(schedule(64, 8, 16, Order::rows).working_lanes(), 8);
  EXPECT_EQ(schedule(64, 8, 16, Order::stripes).slots(), 4U);
  EXPECT_EQ(schedule(64, 8, 16, Order::stripes).working_lanes(), 16);
  EXPECT_EQ(schedule(256, 8, 64, Order::rows).slots(), 32U);
  EXPECT_EQ(schedule(256, 8, 64, Order::stripes).slots(), 4U);
  EXPECT_EQ(schedule(3, 8, 16, Order::stripes).working_lanes(), 3);
}

TEST(Schedule, RowsKeepGroupsAndStripesDealMicroBatchesOut) {
  const Schedule rows = schedule(5, 5, 3, Order::rows);
  const Schedule stripes = schedule(5, 5, 3, Order::stripes);
  const std::vector<std::vector<int>> in_rows{{0, 1, 3}, {-1, 2, 4}};
  const std::vector<std::vector<int>> in_stripes{{0, 1, 2}, {3, 4, -1}};
  for (uint64_t slot = 0; slot < 2; ++slot) {
    for (int lane = 0; lane < 3; ++lane) {
      const auto number = [](std::optional<uint64_t> m) { return m ? static_cast<int>(*m) : -1; };
      EXPECT_EQ(number(rows.micro_batch(slot, lane)), in_rows[slot][static_cast<size_t>(lane)]);
      EXPECT_EQ(number(stripes.micro_batch(slot, lane)), in_stripes[slot][static_cast<size_t>(lane)]);
    }
  }
}

// Every micro-batch is computed once; those of a lane are in its first slots and ascend.
void check(const Schedule& schedule) {
  std::vector<int> lane_of(schedule.groups().micro_batches(), -1);
  int working = 0;
  for (int lane = 0; lane < schedule.lanes(); ++lane) {
    std::optional<uint64_t> before;
    for (uint64_t slot = 0; slot < schedule.slots(); ++slot) {
      const std::optional<uint64_t> micro_batch = schedule.micro_batch(slot, lane);
      ASSERT_EQ(micro_batch.has_value(), slot < schedule.micro_batches(lane));
      if (!micro_batch) continue;
      ASSERT_TRUE(!before || *before < *micro_batch);
      before = micro_batch;
      ASSERT_LT(*micro_batch, lane_of.size());
      ASSERT_EQ(lane_of[*micro_batch], -1);
      lane_of[*micro_batch] = lane;
      ASSERT_EQ(schedule.lane_of(*micro_batch), lane);
    }
    ASSERT_FALSE(schedule.micro_batch(schedule.slots(), lane));
    if (before) ++working;
  }
  for (const int lane : lane_of) ASSERT_NE(lane, -1);
  ASSERT_EQ(schedule.working_lanes(), working);
}

TEST(Schedule, EveryMicroBatchHasOneLaneAndSlot) {
  for (uint64_t micro_batches = 1; micro_batches < 24; ++micro_batches) {
    for (uint64_t value = 1; value < 10; ++value) {
      for (int lanes = 1; lanes < 12; ++lanes) {
        for (const Order order : {Order::rows, Order::stripes}) {
          check({MicroBatchGroups::of_count(micro_batches, value), lanes, order});
          check({MicroBatchGroups::of_size(micro_batches, value), lanes, order});
        }
      }
    }
  }
}

TEST(Schedule, RowsAreWholeGroups) {
  for (uint64_t groups = 1; groups < 40; ++groups) {
    for (int lanes = 1; lanes < 10; ++lanes) {
      const Schedule rows = schedule(groups, groups, lanes, Order::rows);
      uint64_t next = 0;
      for (int lane = 0; lane < lanes; ++lane) {
        const GroupRange range = rows.groups_of(lane);
        EXPECT_EQ(range.begin, next);
        EXPECT_LE(range.end - range.begin, div_ceil(groups, static_cast<uint64_t>(lanes)));
        next = range.end;
      }
      EXPECT_EQ(next, groups);
    }
  }
}

TEST(TreeSum, AddsInTheTreesOrder) {
  // 2^53 absorbs a single 1 but not two of them, so every other order of these additions gives another sum.
  const double big = 9007199254740992.0;
  EXPECT_EQ(tree_sum(std::vector<double>{}), 0.0);
  EXPECT_EQ(tree_sum(std::vector<double>{3}), 3.0);
  EXPECT_EQ(tree_sum(std::vector<double>{big, 1, 1}), (big + 1) + 1);
  EXPECT_EQ(tree_sum(std::vector<double>{big, 0, 1, 1}), big + 2);
  EXPECT_EQ(tree_sum(std::vector<double>{big, 0, 0, 0, 1, 1}), big + 2);
  EXPECT_EQ(tree_sum(std::vector<double>{0, 0, big, 1, 1}), ((big + 1) + 0) + 1);
  // Groups of micro-batches: from left to right inside each, then the tree.
  const std::vector<double> values{big, 1, 1, 1, 1};
  EXPECT_EQ(sum_by_groups(MicroBatchGroups::of_count(5, 1), values), big);
  EXPECT_EQ(sum_by_groups(MicroBatchGroups::of_size(5, 3), values), big + 2);
  EXPECT_EQ(sum_by_groups(MicroBatchGroups::of_count(5, 5), values), ((big + 1) + 2) + 1);
}

}  // namespace
}  // namespace nibble
