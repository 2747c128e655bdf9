// Tests of the shared arena. They run under mpirun on several ranks; fault_test.sh runs the tests named
// SharedArenaFault.*, one at a time.
#include "dist/ranks/shared_arena.h"

#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "dist/device/thread_pool.h"
#include "dist/zero/tree_reduction.h"
#include "machines.h"
#include "mpi_environment.h"
#include "owned_vector.h"

namespace nibble {
namespace {

bool faults_wanted() {
  return std::getenv("NIBBLE_TEST_FAULTS") != nullptr;
}

const WantsMpi wants_mpi(__FILE__, {.timeout_s = faults_wanted() ? 1.0 : 60.0});

std::byte pattern(int rank, size_t i, int round) {
  return static_cast<std::byte>((static_cast<size_t>(rank) * 37 + i * 7 + static_cast<size_t>(round) * 101) & 255);
}

// The parts have unequal lengths; some are empty, and one is longer than what a thread copies at once.
void check_all_gather(const Shape& shape) {
  SCOPED_TRACE(shape.name);
  ShapedCommunicator ranks(shape);
  const int own = ranks.rank();
  std::vector<uint64_t> offsets = {5};
  for (int rank = 0; rank < ranks.size(); ++rank) {
    offsets.push_back(offsets.back() + 100001 * static_cast<size_t>((rank + 1) % 3));
  }
  SharedArena memory("test", ranks);
  std::span<std::byte> data;
  const auto build = [&] {
    memory.arena().allocate(64 * static_cast<size_t>(own));
    data = {static_cast<std::byte*>(memory.arena().allocate(offsets.back())), offsets.back()};
  };
  memory.commit(build);
  build();
  for (int round = 0; round < 3; ++round) {
    const auto place = static_cast<size_t>(own);
    for (size_t i = offsets[place]; i < offsets[place + 1]; ++i) data[i] = pattern(own, i, round);
    memory.all_gather(data, offsets);
    for (int rank = 0; rank < ranks.size(); ++rank) {
      const auto other = static_cast<size_t>(rank);
      for (size_t i = offsets[other]; i < offsets[other + 1]; ++i) ASSERT_EQ(data[i], pattern(rank, i, round)) << rank;
    }
  }
}

TEST(SharedArena, AllGatherOnMachinesOfAnyShape) {
  for (const Shape& shape : shapes()) check_all_gather(shape);
}

TEST(SharedArena, ThreadsCopyTheSame) {
  set_compute_threads(3);
  check_all_gather(shapes()[2]);
  set_compute_threads(1);
}

TEST(SharedArena, PlacesAreThoseOfTheOtherRanks) {
  if (communicator().size() == 1) GTEST_SKIP();
  SharedArena memory("test", communicator());
  int* number = nullptr;
  const auto build = [&] {
    memory.arena().allocate(100 * static_cast<size_t>(communicator().rank()));
    number = static_cast<int*>(memory.arena().allocate(sizeof(int)));
  };
  memory.commit(build);
  build();
  EXPECT_EQ(memory.sharers(), communicator().size());
  *number = 100 + communicator().rank();
  const std::vector<std::byte*> places = memory.meet(number);
  for (int rank = 0; rank < communicator().size(); ++rank) {
    EXPECT_EQ(*reinterpret_cast<int*>(places[static_cast<size_t>(rank)]), 100 + rank);
  }
  const std::vector<std::byte*> of_the_first = memory.meet(communicator().rank() == 0 ? number : nullptr);
  EXPECT_NE(of_the_first[0], nullptr);
  EXPECT_EQ(of_the_first[1], nullptr);
  EXPECT_THROW(memory.meet(&memory), Error);  // on every rank
}

// A plan that fails on one rank fails on all, and no rank waits for the others' memory.
TEST(SharedArena, PlansFailTogether) {
  SharedArena memory("test", communicator());
  const auto plan = [&] {
    if (communicator().rank() == communicator().size() - 1) throw Error(ExitCode::bad_config, "no");
  };
  EXPECT_THROW(memory.commit(plan), AgreedError);
  communicator().barrier();
}

class SharedArenaFault : public testing::Test {
 protected:
  void SetUp() override {
    if (!faults_wanted()) GTEST_SKIP() << "run by fault_test.sh";
  }
  // Runs steps of training in which the last rank does something else.
  template <class Astray>
  static void train(const Astray& astray) {
    SharedArena memory("test", communicator());
    const OwnedVector partition(20000, communicator().size());
    std::optional<TreeReduction> reduction;
    const Schedule schedule(MicroBatchGroups::of_count(8, 8), communicator().size(), Schedule::Order::rows);
    const auto make = [&] { reduction.emplace(memory, communicator(), partition, schedule); };
    memory.commit(make);
    make();
    for (int step = 0; step < 1000000; ++step) {
      for (uint64_t slot = 0; slot < schedule.slots(); ++slot) {
        reduction->begin_slot();
        if (step == 3 && schedule.micro_batch(slot, communicator().rank()) == 7) astray();
        reduction->end_slot();
      }
      reduction->reduce_scatter();
    }
  }
};

TEST_F(SharedArenaFault, LastRankIsStoppedInAStep) {
  train([] { raise(SIGSTOP); });
}

TEST_F(SharedArenaFault, LastRankIsKilledInAStep) {
  train([] { raise(SIGKILL); });
}

TEST_F(SharedArenaFault, LastRankDoesNotShare) {
  if (communicator().rank() == communicator().size() - 1) raise(SIGSTOP);
  train([] {});
}

}  // namespace
}  // namespace nibble
