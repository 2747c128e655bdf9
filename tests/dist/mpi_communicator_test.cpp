// Tests of the MPI communicator. They run under mpirun on several ranks; fault_test.sh runs the tests named Fault.*,
// one at a time.
#include "dist/ranks/communicator.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <new>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <vector>

#include "dist/ranks/self_communicator.h"
#include "mpi_environment.h"

namespace nibble {
namespace {

bool faults_wanted() {
  return std::getenv("NIBBLE_TEST_FAULTS") != nullptr;
}

// The variable's value is the deadline of every collective, in seconds.
double deadline_s() {
  return faults_wanted() ? std::atof(std::getenv("NIBBLE_TEST_FAULTS")) : 60.0;
}

// Two ranks count as a machine.
int machine_of(int rank) {
  return rank / 2;
}

// Messages have at most 1000 bytes, so that every operation is cut into several.
const WantsMpi wants_mpi(__FILE__, {.timeout_s = deadline_s(),
                                    .chunk_bytes = 1000,
                                    .machine_of_rank = machine_of,
                                    .shared_bytes = size_t{1} << 20,
                                    .control = std::getenv("NIBBLE_TEST_WITHOUT_CONTROL") == nullptr});

std::byte pattern(int rank, size_t i) {
  return static_cast<std::byte>((static_cast<size_t>(rank) * 37 + i * 7) & 255);
}

std::vector<std::byte> filled(int rank, size_t count) {
  std::vector<std::byte> data(count);
  for (size_t i = 0; i < count; ++i) data[i] = pattern(rank, i);
  return data;
}

TEST(MpiCommunicator, KnowsItsRanks) {
  EXPECT_TRUE(under_launcher());
  EXPECT_GE(communicator().rank(), 0);
  EXPECT_LT(communicator().rank(), communicator().size());
  EXPECT_EQ(std::to_string(communicator().size()), std::getenv("OMPI_COMM_WORLD_SIZE"));
  const int machine = communicator().rank() / 2;
  EXPECT_EQ(communicator().ranks_on_node(), std::min(communicator().size() - 2 * machine, 2));
  for (int rank = 0; rank < communicator().size(); ++rank) EXPECT_EQ(communicator().machine(rank), rank / 2 * 2);
}

TEST(MpiCommunicator, BroadcastFromEveryRoot) {
  for (const size_t count : {0, 1, 999, 1000, 1001, 12345}) {
    for (int root = 0; root < communicator().size(); ++root) {
      std::vector<std::byte> data = filled(communicator().rank(), count);
      communicator().broadcast(data, root);
      ASSERT_EQ(data, filled(root, count));
    }
  }
}

TEST(MpiCommunicator, AllGatherOfUnequalParts) {
  for (const size_t unit : {0, 1, 500, 3001}) {
    std::vector<uint64_t> offsets = {0};
    for (int rank = 0; rank < communicator().size(); ++rank) {
      offsets.push_back(offsets.back() + unit * static_cast<size_t>(rank % 3));
    }
    std::vector<std::byte> data(offsets.back(), std::byte{0xEE});
    const auto own = static_cast<size_t>(communicator().rank());
    for (size_t i = offsets[own]; i < offsets[own + 1]; ++i) data[i] = pattern(communicator().rank(), i - offsets[own]);
    communicator().all_gather(data, offsets);
    for (size_t rank = 0; rank + 1 < offsets.size(); ++rank) {
      for (size_t i = offsets[rank]; i < offsets[rank + 1]; ++i) {
        ASSERT_EQ(data[i], pattern(static_cast<int>(rank), i - offsets[rank]));
      }
    }
  }
}

TEST(MpiCommunicator, ExchangeOfUnequalParts) {
  const int own = communicator().rank();
  const auto length = [](int from, int to) {
    return from == to ? size_t{0} : static_cast<size_t>((from + 2 * to) % 4) * 1100;
  };
  std::vector<std::vector<std::byte>> sent, received;
  std::vector<std::span<const std::byte>> send;
  std::vector<std::span<std::byte>> receive;
  for (int peer = 0; peer < communicator().size(); ++peer) {
    sent.push_back(filled(own * 16 + peer, length(own, peer)));
    received.emplace_back(length(peer, own));
  }
  for (const auto& data : sent) send.emplace_back(data);
  for (auto& data : received) receive.emplace_back(data);
  communicator().exchange(send, receive);
  for (int peer = 0; peer < communicator().size(); ++peer) {
    EXPECT_EQ(received[static_cast<size_t>(peer)], filled(peer * 16 + own, length(peer, own))) << "from " << peer;
  }
}

bool on_this_machine(int rank) {
  return rank / 2 == communicator().rank() / 2;
}

TEST(MpiCommunicator, RanksOfAMachineSeeEachOthersMemory) {
  // In the second round the memory of the first round is gone.
  for (int round = 0; round < 2; ++round) {
    const int own = communicator().rank();
    const std::unique_ptr<SharedMemory> memory = communicator().share_memory(5000 + static_cast<size_t>(own) * 3000);
    if (communicator().size() == 1) {
      EXPECT_EQ(memory, nullptr);
      continue;
    }
    ASSERT_NE(memory, nullptr);
    const std::span<std::byte> part = memory->part(own);
    ASSERT_GE(part.size(), 5000 + static_cast<size_t>(own) * 3000);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(part.data()) % 4096, 0u);
    for (const std::byte byte : part) ASSERT_EQ(byte, std::byte{0});
    for (size_t i = 0; i < part.size(); ++i) part[i] = pattern(own, i);
    memory->synchronize();
    communicator().barrier();
    memory->synchronize();
    for (int rank = 0; rank < communicator().size(); ++rank) {
      const std::span<std::byte> theirs = memory->part(rank);
      EXPECT_EQ(theirs.empty(), !on_this_machine(rank));
      for (size_t i = 0; i < theirs.size(); ++i) ASSERT_EQ(theirs[i], pattern(rank, i));
    }
    communicator().barrier();
  }
}

// One rank asks for more than the limit above, so nobody shares memory.
TEST(MpiCommunicator, MemoryThatDoesNotFitIsRefusedToAll) {
  const size_t bytes = communicator().rank() == 0 ? (size_t{1} << 20) + 1 : 10;
  EXPECT_EQ(communicator().share_memory(bytes), nullptr);
  communicator().barrier();
}

TEST(MpiCommunicator, AllReduceMax) {
  EXPECT_EQ(communicator().all_reduce_max(-100 - communicator().rank()), -100);
  EXPECT_EQ(communicator().all_reduce_max(communicator().rank()), communicator().size() - 1);
  EXPECT_EQ(communicator().all_reduce_max(INT64_MIN), INT64_MIN);
}

TEST(MpiCommunicator, BadOffsetsAreDefects) {
  std::vector<std::byte> data(8);
  std::vector<uint64_t> offsets(static_cast<size_t>(communicator().size()) + 1, 0);
  offsets.back() = 9;
  EXPECT_THROW(communicator().all_gather(data, offsets), Error);
  offsets.pop_back();
  EXPECT_THROW(communicator().all_gather(data, offsets), Error);
  EXPECT_THROW(communicator().broadcast(data, communicator().size()), Error);
}

TEST(MpiCommunicator, StringsOfAnyLength) {
  for (const size_t length : {0, 1, 5000}) {
    const std::string text(length, 'x');
    const int last = communicator().size() - 1;
    EXPECT_EQ(broadcast_string(communicator(), communicator().rank() == last ? text : "other", last), text);
  }
}

TEST(Agreement, NobodyThrowsWhereAllSucceed) {
  int calls = 0;
  run_together(communicator(), [&] { ++calls; });
  EXPECT_EQ(calls, 1);
}

TEST(Agreement, EveryoneThrowsTheErrorOfTheLowestRank) {
  const int lowest = communicator().size() / 2;
  try {
    run_together(communicator(), [&] {
      if (communicator().rank() < lowest) return;
      throw Error(ExitCode::bad_data, "shard " + std::to_string(communicator().rank()), "mend it");
    });
    FAIL();
  } catch (const AgreedError& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_data);
    EXPECT_NE(std::string(error.what()).find("shard " + std::to_string(lowest)), std::string::npos);
    EXPECT_EQ(error.remedy(), "mend it");
    const bool named = std::string(error.what()).find("rank " + std::to_string(lowest)) != std::string::npos;
    EXPECT_EQ(named, communicator().size() > 1);
  }
  communicator().barrier();  // the ranks are still in step
}

// Returns the error that every rank throws when the last rank fails alone.
Error agreed_after(const std::function<void()>& fail) {
  try {
    run_together(communicator(), [&] {
      if (communicator().rank() == communicator().size() - 1) fail();
    });
  } catch (const AgreedError& error) {
    return error;
  }
  ADD_FAILURE() << "rank " << communicator().rank() << " goes on alone";
  return {ExitCode::ok, ""};
}

TEST(Agreement, OtherExceptionsKeepTheirExitCodesOnEveryRank) {
  const Error memory = agreed_after([] { throw std::bad_alloc(); });
  EXPECT_EQ(memory.code(), ExitCode::out_of_memory);
  EXPECT_EQ(memory.remedy(), out_of_memory_remedy);
  const Error disk = agreed_after(
      [] { throw std::filesystem::filesystem_error("copy", std::make_error_code(std::errc::no_space_on_device)); });
  EXPECT_EQ(disk.code(), ExitCode::io);
  const Error defect = agreed_after([] { throw std::runtime_error("surprise"); });
  EXPECT_EQ(defect.code(), ExitCode::internal);
  EXPECT_NE(std::string(defect.what()).find("surprise"), std::string::npos);
  communicator().barrier();
}

TEST(Agreement, TheLeaderWorksAloneAndFailsForAll) {
  int calls = 0;
  on_leader(communicator(), [&] { ++calls; });
  EXPECT_EQ(calls, communicator().rank() == 0 ? 1 : 0);
  EXPECT_THROW(on_leader(communicator(), [] { throw Error(ExitCode::io, "disk", "mend it"); }), AgreedError);
  communicator().barrier();
}

TEST(SelfCommunicator, IsAloneWithItself) {
  SelfCommunicator self;
  std::vector<std::byte> data = filled(1, 10);
  self.all_gather(data, std::vector<uint64_t>{2, 6});
  self.broadcast(data, 0);
  EXPECT_EQ(data, filled(1, 10));
  EXPECT_THROW(self.all_gather(data, std::vector<uint64_t>{2, 11}), Error);
  EXPECT_EQ(self.all_reduce_max(-3), -3);
  EXPECT_EQ(self.share_memory(100), nullptr);
}

// What the other ranks do while one of them fails.
enum class Others { compute, wait, hang };

class Fault : public testing::Test {
 protected:
  void SetUp() override {
    if (!faults_wanted()) GTEST_SKIP() << "run by fault_test.sh";
  }
  [[noreturn]] static void hang() {
    for (;;) std::this_thread::sleep_for(std::chrono::seconds(1));
  }
  static int last() { return communicator().size() - 1; }
  static void raise_on(int rank, Others others) {
    communicator().barrier();
    Control& control = communicator().control();
    try {
      if (communicator().rank() == rank) throw Error(ExitCode::bad_data, "a shard is damaged");
      if (others == Others::hang) hang();
      if (others == Others::wait) communicator().barrier();
      for (;;) control.at("forward of blocks.0");
    } catch (const RaisedError& error) {
      communicator().abort(static_cast<int>(error.code()));
    } catch (const Error& error) {
      EXPECT_TRUE(control.raise(error));
      communicator().abort(static_cast<int>(error.code()));
    }
  }
};

TEST_F(Fault, LastRankNeverArrives) {
  communicator().barrier();
  if (communicator().rank() == communicator().size() - 1) hang();
  communicator().all_reduce_max(1);
}

TEST_F(Fault, FirstRankNeverArrives) {
  if (communicator().rank() == 0) hang();
  communicator().all_reduce_max(1);
}

TEST_F(Fault, LastRankIsStopped) {
  if (communicator().rank() == communicator().size() - 1) raise(SIGSTOP);
  communicator().barrier();
}

TEST_F(Fault, FirstRankIsStopped) {
  if (communicator().rank() == 0) raise(SIGSTOP);
  communicator().barrier();
}

// The signal comes from outside while the rank is somewhere in a stream of collectives.
TEST_F(Fault, MiddleRankIsStoppedInACollective) {
  communicator().control().begin(Phase::train, 7);
  if (communicator().rank() == 1) {
    std::thread([] {
      std::this_thread::sleep_for(std::chrono::milliseconds(300));
      kill(getpid(), SIGSTOP);
    }).detach();
  }
  std::vector<std::byte> data(size_t{1} << 20);
  for (;;) communicator().broadcast(data, 0);
}

TEST_F(Fault, AllAreStoppedAndGoOn) {
  communicator().barrier();
  if (fork() == 0) {  // the child continues its parent, which stops itself
    std::this_thread::sleep_for(std::chrono::duration<double>(3 * deadline_s()));
    kill(getppid(), SIGCONT);
    _exit(0);
  }
  raise(SIGSTOP);
  communicator().barrier();
  communicator().barrier();
}

TEST_F(Fault, FirstRankRaisesInAPass) {
  raise_on(0, Others::compute);
}
TEST_F(Fault, FirstRankRaisesWhileOthersWait) {
  raise_on(0, Others::wait);
}
TEST_F(Fault, FirstRankRaisesWhileOthersHang) {
  raise_on(0, Others::hang);
}
TEST_F(Fault, LastRankRaisesInAPass) {
  raise_on(last(), Others::compute);
}
TEST_F(Fault, LastRankRaisesWhileOthersWait) {
  raise_on(last(), Others::wait);
}
TEST_F(Fault, LastRankRaisesWhileOthersHang) {
  raise_on(last(), Others::hang);
}

TEST_F(Fault, LastRankDoesSomethingElse) {
  if (communicator().rank() == communicator().size() - 1) {
    communicator().all_reduce_max(1);
  } else {
    communicator().barrier();
  }
}

TEST_F(Fault, LastRankThrowsAlone) {
  if (communicator().rank() < communicator().size() - 1) {
    communicator().barrier();
    return;
  }
  try {
    throw Error(ExitCode::bad_data, "shard");
  } catch (const Error& error) {
    communicator().abort(static_cast<int>(error.code()));
  }
}

TEST_F(Fault, LastRankUnwindsWithItsCommunicator) {
  if (communicator().rank() < communicator().size() - 1) {
    communicator().barrier();
    return;
  }
  try {
    const std::unique_ptr<Communicator> owned = std::move(MpiEnvironment::instance());
    throw Error(ExitCode::numerics, "diverged");
  } catch (const Error& error) {
    _exit(static_cast<int>(error.code()));
  }
}

TEST_F(Fault, LastRankLeavesWithoutTheOthers) {
  if (communicator().rank() < communicator().size() - 1) hang();
  MpiEnvironment::instance().reset();
}

}  // namespace
}  // namespace nibble
