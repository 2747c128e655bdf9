// Runs under mpirun on several ranks. The tests named Fault.* are run by fault_test.sh, one at a time.
#include "dist/communicator.h"

#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "dist/self_communicator.h"
#include "mpi_environment.h"

namespace nibble {
namespace {

bool faults_wanted() {
  return std::getenv("NIBBLE_TEST_FAULTS") != nullptr;
}

// Messages of at most 1000 bytes, so that every operation is cut into several.
const auto* const environment = testing::AddGlobalTestEnvironment(
    new MpiEnvironment({.timeout_s = faults_wanted() ? 1.0 : 60.0, .chunk_bytes = 1000}));

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
  EXPECT_EQ(communicator().ranks_on_node(), communicator().size());
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

TEST(MpiCommunicator, AllToAllOfUnequalParts) {
  const int size = communicator().size();
  const auto length = [](int from, int to) { return static_cast<size_t>((from + 2 * to) % 4) * 1100; };
  std::vector<uint64_t> send_offsets = {0};
  std::vector<uint64_t> receive_offsets = {0};
  std::vector<std::byte> send;
  for (int peer = 0; peer < size; ++peer) {
    const auto part = filled(communicator().rank() * 16 + peer, length(communicator().rank(), peer));
    send.insert(send.end(), part.begin(), part.end());
    send_offsets.push_back(send.size());
    receive_offsets.push_back(receive_offsets.back() + length(peer, communicator().rank()));
  }
  std::vector<std::byte> receive(receive_offsets.back());
  communicator().all_to_all(send, send_offsets, receive, receive_offsets);
  for (int peer = 0; peer < size; ++peer) {
    const auto expected = filled(peer * 16 + communicator().rank(), length(peer, communicator().rank()));
    const auto begin = receive.begin() + static_cast<ptrdiff_t>(receive_offsets[static_cast<size_t>(peer)]);
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), begin)) << "from " << peer;
  }
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

TEST(Agreement, OtherExceptionsAreDefects) {
  try {
    run_together(communicator(), [] { throw std::runtime_error("surprise"); });
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::internal);
  }
}

TEST(SelfCommunicator, CopiesToItself) {
  SelfCommunicator self;
  std::vector<std::byte> send = filled(1, 10);
  std::vector<std::byte> receive(6);
  self.all_to_all(send, std::vector<uint64_t>{2, 6}, receive, std::vector<uint64_t>{1, 5});
  EXPECT_EQ(std::memcmp(receive.data() + 1, send.data() + 2, 4), 0);
  EXPECT_EQ(receive[0], std::byte{0});
  EXPECT_EQ(receive[5], std::byte{0});
  EXPECT_THROW(self.all_to_all(send, std::vector<uint64_t>{2, 6}, receive, std::vector<uint64_t>{0, 5}), Error);
  EXPECT_EQ(self.all_reduce_max(-3), -3);
}

class Fault : public testing::Test {
 protected:
  void SetUp() override {
    if (!faults_wanted()) GTEST_SKIP() << "run by fault_test.sh";
  }
  [[noreturn]] static void hang() {
    for (;;) std::this_thread::sleep_for(std::chrono::seconds(1));
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
