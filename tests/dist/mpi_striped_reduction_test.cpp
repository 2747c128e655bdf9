// Tests of the striped reduction on several ranks: it gives the tree's sum. They run under mpirun.
#include "dist/zero/striped_reduction.h"

#include <gtest/gtest.h>

#include <bit>
#include <optional>

#include "dist/base/error.h"
#include "dist/device/thread_pool.h"
#include "machines.h"
#include "mpi_environment.h"
#include "owned_vector.h"
#include "reduction_fixture.h"

namespace nibble {
namespace {

Schedule stripes(uint64_t micro_batches, uint64_t groups) {
  return {MicroBatchGroups::of_count(micro_batches, groups), communicator().size(), Schedule::Order::stripes};
}

void check_alone(const Schedule& schedule, uint64_t elements) {
  Arena arena("test");
  const OwnedVector partition(elements, communicator().size());
  const auto make = [&] { return StripedReduction(arena, communicator(), partition, schedule); };
  make();
  arena.commit();
  StripedReduction reduction = make();
  check_steps(reduction, schedule, partition);
}

// Checks one case and returns the bytes that this rank sent.
size_t check_shape(const Shape& shape, const Schedule& schedule, uint64_t elements,
                   uint64_t piece = StripedReduction::usual_piece) {
  SCOPED_TRACE(shape.name);
  ShapedCommunicator ranks(shape);
  SharedArena memory("test", ranks);
  const OwnedVector partition(elements, ranks.size());
  std::optional<StripedReduction> reduction;
  const auto make = [&] {
    memory.arena().allocate(100 * static_cast<size_t>(ranks.rank()));  // arenas of the ranks differ in their offsets
    reduction.emplace(memory, ranks, partition, schedule, piece);
  };
  memory.commit(make);
  make();
  check_steps(*reduction, schedule, partition);
  return ranks.bytes_sent;
}

void check(uint64_t micro_batches, uint64_t groups, uint64_t elements) {
  const Schedule schedule = stripes(micro_batches, groups);
  check_alone(schedule, elements);
  for (const Shape& shape : shapes()) check_shape(shape, schedule, elements);
}

// Groups of one micro-batch and of several, groups that end in the middle of a slot, idle lanes in the last slot, and
// fewer micro-batches than ranks.
TEST(StripedReduction, IsTheTreesSumForAnyNumberOfMicroBatches) {
  const uint64_t elements = 3 * uint64_t{4096} + 100;
  for (const uint64_t groups : {1, 2, 3, 5, 8}) {
    for (uint64_t micro_batches = groups; micro_batches <= 2 * groups + 3; micro_batches += groups > 3 ? 3 : 1) {
      check(micro_batches, groups, elements);
    }
  }
}

TEST(StripedReduction, ServesRanksWithoutAShard) {
  check(7, 2, 7);
}

TEST(StripedReduction, ShardsTravelInPieces) {
  const uint64_t elements = 3 * uint64_t{4096} + 100;
  for (const uint64_t piece : {1000, 4096, 100000}) {
    for (const Shape& shape : shapes()) check_shape(shape, stripes(7, 2), elements, piece);
  }
}

TEST(StripedReduction, DoesNotDependOnThreads) {
  set_compute_threads(3);
  check(11, 3, 9 * uint64_t{4096} + 1);
  set_compute_threads(1);
}

// On one machine nothing is sent; otherwise each lane sends every owner on another machine its slice, once a slot.
TEST(StripedReduction, SlicesTravelOnceASlot) {
  const uint64_t elements = 16 * uint64_t{4096};
  if (communicator().size() != 4) return;
  const Schedule schedule = stripes(8, 3);
  EXPECT_EQ(check_shape(shapes()[0], schedule, elements), 0u);
  const uint64_t shard = elements / 4 * sizeof(float);
  const uint64_t slots = 2 * schedule.slots();  // of two steps
  EXPECT_EQ(check_shape(shapes()[1], schedule, elements), slots * 3 * shard);
  EXPECT_EQ(check_shape(shapes()[2], schedule, elements), slots * 2 * shard);
}

TEST(StripedReduction, MemoryIsAGradientAndAFewShards) {
  if (communicator().size() > 1) GTEST_SKIP() << "the bound without exchange buffers";
  for (const uint64_t groups : {1, 2, 3, 4, 7, 8, 64, 100}) {
    Arena arena("test");
    const OwnedVector partition(1024, 1);
    const StripedReduction reduction(arena, communicator(), partition, stripes(2 * groups, groups));
    EXPECT_LE(arena.planned_bytes(), 4096u * (1 + static_cast<uint64_t>(std::bit_width(groups)))) << groups;
  }
}

TEST(StripedReduction, SlotsOutOfTurnAreDefects) {
  Arena arena("test");
  const OwnedVector partition(16, communicator().size());
  const auto make = [&] {
    return StripedReduction(arena, communicator(), partition,
                            stripes(2 * static_cast<uint64_t>(communicator().size()), 1));
  };
  make();
  arena.commit();
  StripedReduction reduction = make();
  EXPECT_THROW(reduction.end_slot(), Error);
  EXPECT_THROW(reduction.reduce_scatter(), Error);
  for (int slot = 0; slot < 2; ++slot) {
    reduction.begin_slot();
    EXPECT_THROW(reduction.begin_slot(), Error);
    reduction.end_slot();
  }
  EXPECT_THROW(reduction.begin_slot(), Error);
}

}  // namespace
}  // namespace nibble
