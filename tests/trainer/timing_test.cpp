// The timing core of the benches, by a clock that only the cases move.
#include "trainer/bench/timing.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace nibble {
namespace {

double now = 0;
double clock_of_cases() {
  return now;
}

// Makes a case that takes `seconds` and adds its name to `order`.
TimedCase case_of(const char* name, double seconds, std::string& order) {
  return {.name = name, .run = [name, seconds, &order] {
            order += name;
            now += seconds;
          }};
}

TEST(Timing, CasesTakeTurnsAndTheWarmUpDoesNotCount) {
  std::string order;
  const std::vector<TimedCase> cases{case_of("a", 1, order), case_of("b", 2, order)};
  const auto seconds = time_by_turns(cases, {.rounds = 3, .clock = clock_of_cases});
  EXPECT_EQ(order, "abababab");
  EXPECT_EQ(seconds, (std::vector<std::vector<double>>{{1, 1, 1}, {2, 2, 2}}));
}

TEST(Timing, AShortCaseRunsAsOftenAsItsSampleNeeds) {
  std::string order;
  int samples = 0;
  const std::vector<TimedCase> cases{case_of("a", 0.25, order), {.name = "impossible", .run = {}}};
  const auto seconds = time_by_turns(
      cases, {.rounds = 2, .sample_seconds = 1, .clock = clock_of_cases, .finish = [&samples] { ++samples; }});
  EXPECT_EQ(order.size(), 2U + 2 * 5);  // two runs of the warm-up, then five in each round
  EXPECT_EQ(samples, 4);
  EXPECT_EQ(seconds, (std::vector<std::vector<double>>{{0.25, 0.25}, {0, 0}}));
}

TEST(Timing, ABudgetLeavesThreeRounds) {
  std::string order;
  const std::vector<TimedCase> cases{case_of("a", 1, order)};
  EXPECT_EQ(time_by_turns(cases, {.rounds = 7, .budget_seconds = 0, .clock = clock_of_cases}).front().size(), 3U);
}

TEST(Timing, Medians) {
  EXPECT_EQ(median_of({3, 1, 2}), 2);
  EXPECT_EQ(median_of({4, 1, 2, 3}), 3);
  EXPECT_EQ(median_ratio({2, 4, 9}, {1, 4, 3}), 2);
}

}  // namespace
}  // namespace nibble
