// Tests that scopes count exclusive time by family, that the times add up to what was recorded, and that events are
// complete and properly nested.
#include "dist/device/profile.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <string_view>
#include <thread>
#include <vector>

namespace nibble {
namespace {

// Waits until the clock has advanced, so that no scope is empty.
void spend_time() {
  const auto start = std::chrono::steady_clock::now();
  while (std::chrono::steady_clock::now() - start < std::chrono::microseconds(20)) {
  }
}

int64_t length_of(const ProfileEvent& event) {
  return event.end - event.begin;
}

// Returns the total length of the events named `name`.
int64_t total(const ProfileRecorder& recorder, std::string_view name) {
  int64_t sum = 0;
  for (const ProfileEvent& event : recorder.events()) sum += event.name == name ? length_of(event) : 0;
  return sum;
}

TEST(Profile, NothingIsRecordedUnlessAsked) {
  EXPECT_FALSE(detail::profiling);
  ProfileRecorder recorder(10);
  { const ProfileScope scope(OperatorFamily::norm, "norm"); }
  EXPECT_EQ(recorder.totals().sum(), 0);
  EXPECT_TRUE(recorder.events().empty());
  recorder.begin("step", true);
  EXPECT_TRUE(recorder.end());
  EXPECT_FALSE(detail::profiling);
  { const ProfileScope scope(OperatorFamily::norm, "norm"); }
  EXPECT_EQ(recorder.events().size(), 1U);
}

TEST(Profile, NestedScopesCountExclusiveTimeAndAddUp) {
  ProfileRecorder recorder(100);
  for (int step = 0; step < 3; ++step) {
    recorder.begin("step", true);
    spend_time();
    {
      const ProfileScope attention(OperatorFamily::attention, "attention");
      spend_time();
      {
        const ProfileScope gemm(OperatorFamily::gemm_bf16, "gemm");
        spend_time();
      }
      spend_time();
    }
    { const ProfileScope gemm(OperatorFamily::gemm_bf16, "gemm"); }
    ASSERT_TRUE(recorder.end());
  }
  const ProfileTotals& totals = recorder.totals();
  EXPECT_EQ(recorder.events().size(), 12U);
  EXPECT_EQ(totals[OperatorFamily::gemm_bf16], total(recorder, "gemm"));
  int64_t inner = 0;  // gemm inside attention
  for (size_t i = 2; i < recorder.events().size(); i += 4) inner += length_of(recorder.events()[i]);
  EXPECT_EQ(totals[OperatorFamily::attention], total(recorder, "attention") - inner);
  EXPECT_GT(totals[OperatorFamily::attention], 0);
  EXPECT_GT(totals[OperatorFamily::other], 0);
  EXPECT_EQ(totals.sum(), total(recorder, "step"));
}

TEST(Profile, EverythingInsideTheHeadIsTheHeads) {
  ProfileRecorder recorder(10);
  recorder.begin("step", true);
  {
    const ProfileScope head(OperatorFamily::head, "head");
    const ProfileScope gemm(OperatorFamily::gemm_bf16, "gemm");
    const ProfileScope quantize(OperatorFamily::quantize, "quantize");
    spend_time();
  }
  recorder.end();
  EXPECT_EQ(recorder.totals()[OperatorFamily::head], total(recorder, "head"));
  EXPECT_EQ(recorder.totals()[OperatorFamily::gemm_bf16], 0);
  EXPECT_EQ(recorder.totals()[OperatorFamily::quantize], 0);
}

TEST(Profile, EventsNestProperly) {
  ProfileRecorder recorder(1000);
  recorder.begin("step", true);
  for (int i = 0; i < 20; ++i) {
    const ProfileScope outer(OperatorFamily::norm, "outer");
    const ProfileScope inner(OperatorFamily::quantize, "inner");
    spend_time();
  }
  recorder.end();
  const auto events = recorder.events();
  ASSERT_EQ(events.size(), 41U);
  for (size_t i = 1; i < events.size(); ++i) {
    EXPECT_LE(events[i - 1].begin, events[i].begin);
    for (size_t j = 0; j < i; ++j) {
      const bool inside = events[j].begin <= events[i].begin && events[i].end <= events[j].end;
      const bool after = events[j].end <= events[i].begin;
      EXPECT_TRUE(inside || after) << i << " and " << j;
    }
  }
}

TEST(Profile, AnIntervalThatDoesNotFitIsDroppedWhole) {
  ProfileRecorder recorder(5);
  const auto interval = [&](int scopes) {
    recorder.begin("step", true);
    for (int i = 0; i < scopes; ++i) {
      const ProfileScope scope(OperatorFamily::norm, "norm");
      spend_time();
    }
    return recorder.end();
  };
  EXPECT_TRUE(interval(2));
  const int64_t before = recorder.totals()[OperatorFamily::norm];
  EXPECT_FALSE(interval(2));
  EXPECT_EQ(recorder.events().size(), 3U);
  EXPECT_GT(recorder.totals()[OperatorFamily::norm], before);  // time counts all the same
  EXPECT_TRUE(interval(1));
  EXPECT_EQ(recorder.events().size(), 5U);
}

TEST(Profile, OtherThreadsAreNotSeen) {
  ProfileRecorder recorder(10);
  recorder.begin("step", true);
  std::thread([] {
    const ProfileScope scope(OperatorFamily::norm, "norm");
    spend_time();
  }).join();
  recorder.end();
  EXPECT_EQ(recorder.events().size(), 1U);
  EXPECT_EQ(recorder.totals()[OperatorFamily::norm], 0);
}

TEST(Profile, ScopesMayBeDeeperThanIsToldApart) {
  ProfileRecorder recorder(1000);
  const std::function<void(int)> nest = [&](int depth) {
    const ProfileScope scope(OperatorFamily::activation, "deep");
    if (depth > 1) nest(depth - 1);
    spend_time();
  };
  recorder.begin("step", true);
  nest(100);
  EXPECT_TRUE(recorder.end());
  EXPECT_EQ(recorder.totals().sum(), total(recorder, "step"));
  EXPECT_EQ(recorder.events().size(), 101U);
  EXPECT_TRUE(std::is_sorted(recorder.events().begin(), recorder.events().end(),
                             [](const auto& a, const auto& b) { return a.begin < b.begin; }));
}

TEST(Profile, ScopesSurviveTheRecorder) {
  auto recorder = std::make_unique<ProfileRecorder>(10);
  recorder->begin("step", true);
  {
    const ProfileScope scope(OperatorFamily::norm, "norm");
    recorder.reset();
  }
  EXPECT_FALSE(detail::profiling);
  ProfileRecorder another(10);
  another.begin("step", true);
  EXPECT_TRUE(another.end());
}

TEST(Profile, FamiliesHaveDifferentNames) {
  std::vector<std::string_view> names;
  for (size_t i = 0; i < operator_families; ++i) names.push_back(name_of(static_cast<OperatorFamily>(i)));
  std::sort(names.begin(), names.end());
  EXPECT_EQ(std::adjacent_find(names.begin(), names.end()), names.end());
  EXPECT_EQ(std::find(names.begin(), names.end(), "?"), names.end());
}

}  // namespace
}  // namespace nibble
