// Tests of the learning rate schedules.
#include "optim/schedule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "dist/base/error.h"

namespace nibble {
namespace {

constexpr double pi = 3.14159265358979323846;

ScheduleConfig config_of(ScheduleKind kind) {
  return {.kind = kind, .peak = 2e-3, .min_ratio = 0.1, .warmup_steps = 10, .total_steps = 110, .decay_share = 0.2};
}

TEST(Schedule, WarmsUpInEqualStepsWithoutAZero) {
  for (const auto kind : {ScheduleKind::cosine, ScheduleKind::linear, ScheduleKind::wsd, ScheduleKind::wsd_sqrt}) {
    for (uint64_t step = 0; step < 10; ++step) {
      EXPECT_EQ(learning_rate(config_of(kind), step), 2e-3 * (static_cast<double>(step + 1) / 10.0));
    }
    EXPECT_EQ(learning_rate(config_of(kind), 9), 2e-3);
    EXPECT_EQ(learning_rate(config_of(kind), 10), 2e-3);
  }
}

TEST(Schedule, CosineIsTheCosine) {
  for (uint64_t step = 10; step < 110; ++step) {
    const double progress = static_cast<double>(step - 10) / 100.0;
    const double expected = 2e-3 * (0.1 + 0.9 * (1 + std::cos(pi * progress)) / 2);
    EXPECT_NEAR(learning_rate(config_of(ScheduleKind::cosine), step), expected, 2e-3 * 4e-16) << step;
  }
}

TEST(Schedule, LinearIsALine) {
  const ScheduleConfig config = config_of(ScheduleKind::linear);
  EXPECT_NEAR(learning_rate(config, 35), 2e-3 * (0.1 + 0.9 * 0.75), 1e-18);
  EXPECT_NEAR(learning_rate(config, 60), 2e-3 * (0.1 + 0.9 * 0.5), 1e-18);
}

TEST(Schedule, WsdIsStableThenDecays) {
  for (const auto kind : {ScheduleKind::wsd, ScheduleKind::wsd_sqrt}) {
    for (uint64_t step = 10; step <= 88; ++step) EXPECT_EQ(learning_rate(config_of(kind), step), 2e-3) << step;
  }
  EXPECT_NEAR(learning_rate(config_of(ScheduleKind::wsd), 99), 2e-3 * (0.1 + 0.9 * 0.5), 1e-18);
  EXPECT_NEAR(learning_rate(config_of(ScheduleKind::wsd_sqrt), 99), 2e-3 * (0.1 + 0.9 * (1 - std::sqrt(0.5))), 1e-18);
}

TEST(Schedule, EndsAtTheMinimumAndStaysThere) {
  for (const auto kind : {ScheduleKind::cosine, ScheduleKind::linear, ScheduleKind::wsd, ScheduleKind::wsd_sqrt}) {
    ScheduleConfig config = config_of(kind);
    EXPECT_EQ(learning_rate(config, 110), 2e-3 * 0.1);
    EXPECT_EQ(learning_rate(config, UINT64_MAX), 2e-3 * 0.1);
    EXPECT_GT(learning_rate(config, 109), 2e-3 * 0.1);
    for (uint64_t step = 11; step < 110; ++step) {
      EXPECT_LE(learning_rate(config, step), learning_rate(config, step - 1)) << step;
    }
  }
}

TEST(Schedule, EdgesHaveValues) {
  ScheduleConfig config = config_of(ScheduleKind::cosine);
  config.warmup_steps = 0;
  EXPECT_EQ(learning_rate(config, 0), 2e-3);
  config.warmup_steps = config.total_steps = 5;
  EXPECT_EQ(learning_rate(config, 4), 2e-3);
  EXPECT_EQ(learning_rate(config, 5), 2e-4);
  config.total_steps = config.warmup_steps = 0;
  EXPECT_EQ(learning_rate(config, 0), 2e-4);
  config = config_of(ScheduleKind::wsd);
  config.decay_share = 0;
  EXPECT_EQ(learning_rate(config, 109), 2e-3);
  config.decay_share = 1;  // the decay starts after the warm-up
  EXPECT_NEAR(learning_rate(config, 60), 2e-3 * (0.1 + 0.9 * 0.5), 1e-18);
}

TEST(Schedule, NonsenseIsRefused) {
  const auto code = [](const ScheduleConfig& config) {
    try {
      validate(config);
    } catch (const Error& error) {
      return error.code();
    }
    return ExitCode::ok;
  };
  const ScheduleConfig good = config_of(ScheduleKind::wsd);
  EXPECT_EQ(code(good), ExitCode::ok);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const double bad : {-1e-9, 1.5, nan}) {
    ScheduleConfig config = good;
    config.min_ratio = bad;
    EXPECT_EQ(code(config), ExitCode::bad_config);
    config = good;
    config.decay_share = bad;
    EXPECT_EQ(code(config), ExitCode::bad_config);
  }
  for (const double bad : {-1.0, nan, std::numeric_limits<double>::infinity()}) {
    ScheduleConfig config = good;
    config.peak = bad;
    EXPECT_EQ(code(config), ExitCode::bad_config);
  }
  ScheduleConfig config = good;
  config.warmup_steps = 111;
  EXPECT_EQ(code(config), ExitCode::bad_config);
}

TEST(Schedule, LaterPeaksHoldFromTheirStepOnAndKeepTheShape) {
  for (const auto kind : {ScheduleKind::cosine, ScheduleKind::linear, ScheduleKind::wsd, ScheduleKind::wsd_sqrt}) {
    const ScheduleConfig plain = config_of(kind);
    ScheduleConfig changed = plain;
    changed.later_peaks = {{5, 1e-3}, {60, 4e-3}};
    for (uint64_t step = 0; step < 120; ++step) {
      ScheduleConfig expected = plain;
      if (step >= 5) expected.peak = 1e-3;
      if (step >= 60) expected.peak = 4e-3;
      EXPECT_EQ(learning_rate(changed, step), learning_rate(expected, step)) << step;
    }
  }
  ScheduleConfig wrong = config_of(ScheduleKind::cosine);
  wrong.later_peaks = {{5, -1.0}};
  EXPECT_THROW(validate(wrong), Error);
}

}  // namespace
}  // namespace nibble
