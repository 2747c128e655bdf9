// The watch ends the process, with a message that names the operation.
#include "dist/watch/collective_watch.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "dist/base/error.h"

namespace nibble {
namespace {

const auto ended_as_peer_lost = testing::ExitedWithCode(static_cast<int>(ExitCode::peer_lost));

void wait_s(double seconds) {
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

class CollectiveWatchTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { testing::GTEST_FLAG(death_test_style) = "threadsafe"; }

  CollectiveWatch::Options options(double timeout_s) {
    const auto find_problem = [this] { return failed ? "a cable is loose" : ""; };
    return {.library = "NCCL", .rank = 5, .timeout_s = timeout_s, .marks = &marks, .problem = find_problem};
  }
  void begin_on_device(uint64_t number) { std::atomic_ref(marks.begun) = number; }
  void end_on_device(uint64_t number) { std::atomic_ref(marks.ended) = number; }

  CollectiveMarks marks;
  std::atomic<bool> failed{false};
};

// Calls and operations that are short, one after the other for longer than the timeout, and an operation that waits on
// the device for work before it.
TEST_F(CollectiveWatchTest, LetsShortOperationsPass) {
  CollectiveWatch watch(options(1));
  for (uint64_t number = 1; number <= 6; ++number) {
    watch.add(number, "sum", 100);
    watch.enter_call();
    wait_s(0.1);
    watch.leave_call();
    begin_on_device(number);
    wait_s(0.1);
    end_on_device(number);
  }
  watch.add(7, "sum", 100);
  wait_s(1.3);
}

TEST_F(CollectiveWatchTest, EndsTheProcessWhenACallDoesNotReturn) {
  const auto start = [&] {
    CollectiveWatch watch(options(0.2));
    watch.enter_call();
    wait_s(60);
  };
  EXPECT_EXIT(start(), ended_as_peer_lost, "start number 0 of NCCL \\(0 bytes\\) on rank 5 took longer than 0.2 s");
  const auto operation = [&] {
    CollectiveWatch watch(options(0.2));
    watch.add(1, "sum", 100);
    watch.add(2, "broadcast", 200);
    watch.enter_call();
    wait_s(60);
  };
  EXPECT_EXIT(operation(), ended_as_peer_lost, "broadcast number 2 of NCCL \\(200 bytes\\) on rank 5 took longer");
}

TEST_F(CollectiveWatchTest, EndsTheProcessWhenTheDeviceDoesNotEndAnOperation) {
  const auto operation = [&] {
    CollectiveWatch watch(options(0.2));
    watch.add(1, "sum", 100);
    watch.add(2, "broadcast", 200);
    begin_on_device(1);
    wait_s(60);
  };
  EXPECT_EXIT(operation(), ended_as_peer_lost, "sum number 1 of NCCL \\(100 bytes\\) on rank 5 took longer than 0.2 s");
}

TEST_F(CollectiveWatchTest, EndsTheProcessWhenTheLibraryReportsAnError) {
  const auto operation = [&] {
    CollectiveWatch watch(options(60));
    watch.add(1, "sum", 100);
    failed = true;
    wait_s(60);
  };
  EXPECT_EXIT(operation(), ended_as_peer_lost, "sum number 1 of NCCL .* failed: a cable is loose");
}

}  // namespace
}  // namespace nibble
