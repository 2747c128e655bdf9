#include "trainer/record/progress_display.h"

#include <gtest/gtest.h>

#include <string>

namespace nibble {
namespace {

StepProgress long_run() {
  StepProgress progress;
  progress.metrics = {.step = 123456,
                      .tokens = 64'728'596'480,
                      .loss = 2.71828,
                      .grad_norm = 0.123,
                      .learning_rate = 3e-4,
                      .tokens_per_second = 1'234'567,
                      .mfu = 0.456};
  progress.total_steps = 1'000'000;
  progress.remaining_seconds = 1e6;
  return progress;
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(ProgressDisplay, LineHasAllFigures) {
  EXPECT_EQ(progress_line(long_run()),
            "step  123456/1000000  tokens 64,728,596,480  loss 2.7183  grad 0.123  lr 3.00e-04  1,234,567 tok/s  MFU "
            "45.6 %  ETA 11d13h");
}

TEST(ProgressDisplay, BarKeepsRateAndRemainingTimeAtEveryWidth) {
  for (size_t width = 1; width <= 200; ++width) {
    const std::string bar = progress_bar(long_run(), width);
    EXPECT_LE(bar.size(), width);
    if (width < 40) continue;
    EXPECT_TRUE(has(bar, "1,234,567 tok/s")) << width << bar;
    EXPECT_TRUE(has(bar, "ETA 11d13h")) << width << bar;
  }
  const std::string usual = progress_bar(long_run(), 79);
  EXPECT_EQ(usual, "[==                 ]  123456/1000000  loss 2.7183  1,234,567 tok/s  ETA 11d13h");
  EXPECT_TRUE(has(progress_bar(long_run(), 120), "MFU 45.6 %"));
  EXPECT_TRUE(has(progress_bar(long_run(), 120), "grad 0.123"));
}

}  // namespace
}  // namespace nibble
