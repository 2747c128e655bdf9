// Tests of the tree reduction on several ranks. They run under mpirun.
#include "dist/zero/tree_reduction.h"

#include <gtest/gtest.h>

#include <bit>
#include <optional>
#include <vector>

#include "dist/base/error.h"
#include "dist/device/thread_pool.h"
#include "machines.h"
#include "mpi_environment.h"
#include "owned_vector.h"
#include "reduction_fixture.h"

namespace nibble {
namespace {

struct Case {
  uint64_t groups;
  uint64_t elements;
};

// A step whose groups have one micro-batch each.
Schedule one_each(uint64_t groups) {
  return {MicroBatchGroups::of_count(groups, groups), communicator().size(), Schedule::Order::rows};
}

void check_alone(const Case& test) {
  Arena arena("test");
  const OwnedVector partition(test.elements, communicator().size());
  const auto make = [&] { return TreeReduction(arena, communicator(), partition, one_each(test.groups)); };
  make();
  arena.commit();
  TreeReduction reduction = make();
  check_steps(reduction, one_each(test.groups), partition);
}

// Checks one case and returns the bytes that this rank sent.
size_t check_shape(const Shape& shape, const Case& test) {
  SCOPED_TRACE(shape.name);
  ShapedCommunicator ranks(shape);
  SharedArena memory("test", ranks);
  const OwnedVector partition(test.elements, ranks.size());
  std::optional<TreeReduction> reduction;
  const auto make = [&] {
    memory.arena().allocate(100 * static_cast<size_t>(ranks.rank()));  // arenas of the ranks differ in their offsets
    reduction.emplace(memory, ranks, partition, one_each(test.groups));
  };
  memory.commit(make);
  make();
  check_steps(*reduction, one_each(test.groups), partition);
  return ranks.bytes_sent;
}

void check(const Case& test) {
  check_alone(test);
  for (const Shape& shape : shapes()) check_shape(shape, test);
}

TEST(TreeReduction, IsTheTreesSumForAnyNumberOfGroups) {
  const uint64_t elements = 5 * uint64_t{4096} + 100;
  for (uint64_t groups = 1; groups <= 17; ++groups) check({groups, elements});
  check({32, elements});
  check({37, elements});
}

TEST(TreeReduction, ServesRanksWithoutAShard) {
  for (const uint64_t groups : {1, 2, 3, 5, 8}) check({groups, 7});
}

TEST(TreeReduction, DoesNotDependOnThreads) {
  set_compute_threads(3);
  check({11, 9 * uint64_t{4096} + 1});
  set_compute_threads(1);
}

// Runs two steps. The ranks of a machine fold their sums first, so that each shard leaves the machine once.
TEST(TreeReduction, OnlySumsOfMachinesTravel) {
  const uint64_t elements = 16 * uint64_t{4096};
  const int size = communicator().size();
  const Case test{8, elements};
  EXPECT_EQ(check_shape(shapes()[0], test), 0u);
  if (size != 4) return;
  // Each rank sends its half of the other machine's two shards.
  EXPECT_EQ(check_shape(shapes()[2], test), 2 * elements / 4 * sizeof(float));
  EXPECT_EQ(check_shape(shapes()[1], test), 2 * 3 * elements / 4 * sizeof(float));
}

TEST(TreeReduction, TheOrderMatters) {
  int different = 0;
  for (uint64_t i = 0; i < 100; ++i) {
    float left_fold = 0;
    for (uint64_t group = 0; group < 8; ++group) left_fold += gradient(group, i, 0);
    different += left_fold != tree_node(MicroBatchGroups::of_count(8, 8), 0, 8, i, 0) ? 1 : 0;
  }
  EXPECT_GT(different, 20);
}

TEST(TreeReduction, MemoryGrowsWithTheLogarithmOfTheGroups) {
  if (communicator().size() > 1) GTEST_SKIP() << "the bound without exchange buffers";
  for (const uint64_t groups : {1, 2, 3, 4, 7, 8, 64, 100}) {
    Arena arena("test");
    const OwnedVector partition(1024, 1);
    const TreeReduction reduction(arena, communicator(), partition, one_each(groups));
    EXPECT_LE(arena.planned_bytes(), 4096u * static_cast<uint64_t>(std::bit_width(groups))) << groups;
  }
}

TEST(TreeReduction, SlotsOutOfTurnAreDefects) {
  Arena arena("test");
  const OwnedVector partition(16, communicator().size());
  const auto make = [&] {
    return TreeReduction(arena, communicator(), partition, one_each(4 * static_cast<uint64_t>(communicator().size())));
  };
  make();
  arena.commit();
  TreeReduction reduction = make();
  EXPECT_THROW(reduction.end_slot(), Error);
  EXPECT_THROW(reduction.reduce_scatter(), Error);
  for (int slot = 0; slot < 4; ++slot) {
    reduction.begin_slot();
    EXPECT_THROW(reduction.begin_slot(), Error);
    reduction.end_slot();
  }
  EXPECT_THROW(reduction.begin_slot(), Error);
}

}  // namespace
}  // namespace nibble
