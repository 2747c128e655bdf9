// Tests of the thread pool: results, failures, nesting, and changes of its size.
#include "dist/device/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "dist/base/error.h"

namespace nibble {
namespace {

class ThreadPool : public testing::TestWithParam<int> {
 protected:
  void SetUp() override { set_compute_threads(GetParam()); }
  void TearDown() override { set_compute_threads(1); }
};
INSTANTIATE_TEST_SUITE_P(Threads, ThreadPool, testing::Values(1, 2, 3, 8));

TEST_P(ThreadPool, EveryIndexOnceInRangesOfTheGrain) {
  for (const size_t count : {0, 1, 2, 63, 64, 65, 1000, 4097}) {
    for (const size_t grain : {1, 7, 64, 5000}) {
      std::vector<std::atomic<int>> visits(count);
      parallel_for(count, grain, [&](size_t begin, size_t end) {
        EXPECT_EQ(begin % grain, 0u);
        EXPECT_LT(begin, end);
        EXPECT_LE(end - begin, grain);
        for (size_t i = begin; i < end; ++i) ++visits[i];
      });
      for (size_t i = 0; i < count; ++i) ASSERT_EQ(visits[i], 1) << i << " of " << count << " by " << grain;
    }
  }
}

TEST_P(ThreadPool, HugeGrainsDoNotOverflow) {
  size_t total = 0;
  parallel_for(10, SIZE_MAX, [&](size_t begin, size_t end) { total += end - begin; });
  EXPECT_EQ(total, 10u);
}

// Many short jobs one after another also test the publishing of jobs.
TEST_P(ThreadPool, ResultsDoNotDependOnThreads) {
  std::vector<float> values(1000);
  std::vector<float> expected(values.size());
  for (int round = 0; round < 2000; ++round) {
    const auto body = [&](std::vector<float>& out) {
      return [&out, round](size_t begin, size_t end) {
        for (size_t i = begin; i < end; ++i)
          out[i] = std::sqrt(out[i] + static_cast<float>(i) * 0.37f + static_cast<float>(round));
      };
    };
    parallel_for(values.size(), 16, body(values));
    body(expected)(0, expected.size());
    ASSERT_EQ(values, expected) << round;
  }
}

// Chunks 5 and 6 both fail, in either order if there are threads enough to run both at once.
TEST_P(ThreadPool, TheLowestFailureIsReportedAndThePoolSurvives) {
  for (int round = 0; round < 20; ++round) {
    std::atomic<bool> entered[2] = {false, false};
    const size_t first_to_fail = round % 2 == 0 ? 5 : 6;
    try {
      parallel_for(100, 1, [&](size_t begin, size_t) {
        if (begin != 5 && begin != 6) return;
        entered[begin - 5] = true;
        if (begin != first_to_fail && GetParam() > 1) {
          while (!entered[first_to_fail - 5]) std::this_thread::yield();
          std::this_thread::sleep_for(std::chrono::milliseconds(2));
        }
        throw std::runtime_error(std::to_string(begin));
      });
      FAIL();
    } catch (const std::runtime_error& error) {
      EXPECT_STREQ(error.what(), "5");
    }
    std::atomic<size_t> sum{0};
    parallel_for(100, 3, [&](size_t begin, size_t end) { sum += end - begin; });
    ASSERT_EQ(sum, 100u);
  }
}

TEST_P(ThreadPool, NestedCallsRunOnTheirOwnThread) {
  std::atomic<int> total{0};
  parallel_for(16, 1, [&](size_t, size_t) {
    const auto outer = std::this_thread::get_id();
    const int index = current_compute_thread();
    parallel_for(10, 2, [&](size_t begin, size_t end) {
      EXPECT_EQ(std::this_thread::get_id(), outer);
      EXPECT_EQ(current_compute_thread(), index);
      total += static_cast<int>(end - begin);
    });
  });
  EXPECT_EQ(total, 160);
}

TEST_P(ThreadPool, ThreadIndicesAreThePoolsAndNeverShared) {
  EXPECT_EQ(compute_threads(), GetParam());
  EXPECT_EQ(current_compute_thread(), 0);
  std::vector<std::atomic<int>> inside(static_cast<size_t>(GetParam()));
  parallel_for(2000, 1, [&](size_t, size_t) {
    const int index = current_compute_thread();
    ASSERT_GE(index, 0);
    ASSERT_LT(index, GetParam());
    auto& count = inside[static_cast<size_t>(index)];
    EXPECT_EQ(count++, 0);
    EXPECT_EQ(count--, 1);
  });
}

TEST_P(ThreadPool, AllThreadsTakePart) {
  // Each chunk waits until every thread has one. With fewer threads at work this would never end.
  std::atomic<int> arrived{0};
  parallel_for(static_cast<size_t>(GetParam()), 1, [&](size_t, size_t) {
    ++arrived;
    while (arrived < GetParam()) std::this_thread::yield();
  });
  EXPECT_EQ(arrived, GetParam());
}

TEST_P(ThreadPool, ParkedThreadsWakeUp) {
  for (int round = 0; round < 5; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));  // long enough to park
    std::atomic<int> arrived{0};
    parallel_for(static_cast<size_t>(GetParam()), 1, [&](size_t, size_t) {
      ++arrived;
      while (arrived < GetParam()) std::this_thread::yield();
    });
  }
}

TEST_P(ThreadPool, CallsFromSeveralThreadsAllComplete) {
  std::atomic<size_t> total{0};
  const auto work = [&] {
    for (int round = 0; round < 300; ++round) {
      parallel_for(100, 7, [&](size_t begin, size_t end) { total += end - begin; });
    }
  };
  std::thread other(work);
  work();
  other.join();
  EXPECT_EQ(total, 2u * 300 * 100);
}

TEST(ThreadPoolSize, CanBeChangedAnyNumberOfTimes) {
  for (int round = 0; round < 50; ++round) {
    const int threads = 1 + round % 5;
    set_compute_threads(threads, 1 + round % 2);
    EXPECT_EQ(compute_threads(), threads);
    std::atomic<size_t> total{0};
    parallel_for(64, 1, [&](size_t begin, size_t end) { total += end - begin; });
    ASSERT_EQ(total, 64u);
  }
  EXPECT_THROW(set_compute_threads(0), Error);
  set_compute_threads(2);
  EXPECT_THROW(parallel_for(4, 1, [](size_t, size_t) { set_compute_threads(1); }), Error);
  set_compute_threads(1);
}

TEST(ThreadPoolSize, AvailableThreadsAreDividedAmongRanks) {
  const int alone = available_threads(1);
  EXPECT_GE(alone, 1);
  EXPECT_LE(alone, static_cast<int>(std::thread::hardware_concurrency()));
  EXPECT_LE(available_threads(2), alone);
  EXPECT_EQ(available_threads(1 << 20), 1);
}

}  // namespace
}  // namespace nibble
