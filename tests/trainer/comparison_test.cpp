#include "trainer/report/comparison.h"

#include <gtest/gtest.h>

#include <cmath>

#include "dist/base/error.h"
#include "trainer/report/comparison_text.h"
#include "trainer/report/seed_comparison.h"

namespace nibble {
namespace {

ComparedRun run_with_losses(const std::string& name, const std::vector<double>& losses) {
  ComparedRun run{.directory = "/" + name, .name = name, .config = {}, .history = {}};
  for (size_t i = 0; i < losses.size(); ++i) {
    run.history.steps.push_back({.step = i + 1, .tokens = (i + 1) * 100, .loss = losses[i], .tokens_per_second = 50});
  }
  return run;
}

TEST(Comparison, GapOfAKnownSeries) {
  // 40 common steps: the window at the end is the last two, with differences 0.2 and 0.4.
  std::vector<double> base(40, 4.0);
  std::vector<double> other(40, 4.0);
  base[38] = 10;  // noise of the data, which both runs have
  other[38] = 10.2;
  other[39] = 4.4;
  const Comparison comparison = compare_runs(run_with_losses("base", base), run_with_losses("other", other));
  const Gap& gap = comparison.fractions.back();
  EXPECT_EQ(gap.steps, 2U);
  EXPECT_EQ(gap.tokens, 4000U);
  EXPECT_NEAR(gap.base_loss, 7, 1e-12);
  EXPECT_NEAR(gap.absolute, 0.3, 1e-12);
  EXPECT_NEAR(gap.relative, 0.3 / 7, 1e-12);
  EXPECT_EQ(comparison.fractions.front().absolute, 0);
}

// Steps of 100 and of 150 tokens meet every 300 tokens: there, and only there, are gaps.
TEST(Comparison, RunsArePairedByTokens) {
  ComparedRun base = run_with_losses("base", {9, 8, 7, 6, 5, 4});
  ComparedRun run = run_with_losses("run", {9, 7.5, 6, 4.5});
  for (size_t i = 0; i < 4; ++i) run.history.steps[i].tokens = (i + 1) * 150;
  const Comparison comparison = compare_runs(base, run);
  EXPECT_EQ(comparison.common_steps, 2U);
  EXPECT_EQ(comparison.fractions.front().tokens, 300U);
  EXPECT_EQ(comparison.fractions.front().absolute, 0.5);
  EXPECT_EQ(comparison.fractions.back().tokens, 600U);
  EXPECT_EQ(comparison.fractions.back().absolute, 0.5);
  // The validations after two steps each saw other numbers of tokens.
  base.history.validations = {{2, 200, {{.loss = 4.0}}}, {3, 300, {{.loss = 3.0}}}};
  run.history.validations = {{2, 300, {{.loss = 3.5}}}};
  EXPECT_EQ(compare_runs(base, run).validation().value().absolute, 0.5);
}

TEST(Comparison, AValidationBeforeTheForkIsNoComparison) {
  ComparedRun base = run_with_losses("base", {5, 4, 3, 2});
  ComparedRun run = run_with_losses("run", {5, 4, 3.5, 2.5});
  base.history.validations = run.history.validations = {{1, 100, {{.loss = 4.5}}}, {2, 200, {{.loss = 4.0}}}};
  const Comparison comparison = compare_runs(base, run);
  EXPECT_EQ(comparison.fork_tokens, 200U);
  EXPECT_FALSE(comparison.validation());
  EXPECT_NE(comparison.validation_note.find("behind the fork at 200 tokens"), std::string::npos);
  EXPECT_EQ(comparison.final_gap().absolute, 0.5);  // of the training loss behind the fork
  // At the fork the weights may already differ, and then so does the validation.
  run.history.validations[1].losses[0].loss = 4.25;
  EXPECT_EQ(compare_runs(base, run).validation().value().absolute, 0.25);
  base.history.validations.push_back({4, 400, {{.loss = 2}}});
  run.history.validations.push_back({4, 400, {{.loss = 3}}});
  EXPECT_EQ(compare_runs(base, run).validation().value().tokens, 400U);
  // Two equal runs have a gap of zero, and nothing to compare in validation.
  const Comparison same = compare_runs(base, base);
  EXPECT_EQ(same.fork_tokens, 400U);
  EXPECT_EQ(same.final_gap().absolute, 0);
  EXPECT_FALSE(same.validation());
  EXPECT_EQ(same.throughput_ratio, 1);
}

TEST(Comparison, ValidationsOfOtherTextAreNotPaired) {
  ComparedRun base = run_with_losses("base", {5, 4});
  ComparedRun run = run_with_losses("run", {5.5, 4.5});
  base.history.validations = {
      {2, 200, {{.name = "a", .loss = 4.0, .data_fingerprint = "x"}, {.name = "b", .loss = 3}}}};
  run.history.validations = {{2, 200, {{.name = "a", .loss = 4.5, .data_fingerprint = "y"}, {.name = "c", .loss = 3}}}};
  const Comparison comparison = compare_runs(base, run);
  EXPECT_FALSE(comparison.validation());
  EXPECT_NE(comparison.validation_note.find("different text"), std::string::npos);
  run.history.validations[0].losses[0].data_fingerprint = "x";
  run.history.validations[0].losses[1] = {.name = "b", .loss = 3.25};
  const Comparison sets = compare_runs(base, run);
  ASSERT_EQ(sets.last_validations().size(), 2U);
  EXPECT_EQ(sets.validation().value().absolute, 0.5);
  EXPECT_EQ(sets.last_validations()[1].set, "b");
  EXPECT_EQ(sets.last_validations()[1].gap.absolute, 0.25);
}

// The baseline ends at 3.0 after 400 tokens. The run is twice as fast and comes to 3.0 half-way between 200 (3.5) and
// 300 (2.5) tokens: 250 tokens in the time in which the baseline makes 125 of its 400.
TEST(Comparison, TimeToEqualLossIsWhereTheCurveOfTheRunReachesTheEndOfTheBase) {
  ComparedRun base = run_with_losses("base", {6, 5, 4, 3});
  ComparedRun run = run_with_losses("run", {6.5, 5, 4, 3});
  for (StepMetrics& step : run.history.steps) step.tokens_per_second = 100;
  base.history.validations = {{2, 200, {{.loss = 4}}}, {4, 400, {{.loss = 3.0}}}};
  run.history.validations = {{2, 200, {{.loss = 3.5}}}, {3, 300, {{.loss = 2.5}}}, {4, 400, {{.loss = 2.25}}}};
  const TimeToEqualLoss equal = compare_runs(base, run).equal_loss.value();
  EXPECT_TRUE(equal.of_validation);
  EXPECT_EQ(equal.loss, 3.0);
  EXPECT_EQ(equal.tokens, 250);
  EXPECT_EQ(equal.time_ratio, 250.0 / 400 / 2);
  for (RunHistory::Validation& validation : run.history.validations) validation.losses[0].loss += 1;
  const Comparison worse = compare_runs(base, run);
  EXPECT_FALSE(worse.equal_loss.value().tokens);
  EXPECT_NE(equal_loss_text(base, run, worse).find("does not reach"), std::string::npos);
}

// From the tables of Student's t, two-sided 95 % and 99 %.
TEST(Seeds, QuantilesOfStudentsT) {
  const std::pair<uint64_t, double> at_95[] = {{1, 12.706}, {2, 4.303},  {3, 3.182},  {4, 2.776},   {5, 2.571},
                                               {9, 2.262},  {10, 2.228}, {30, 2.042}, {120, 1.980}, {1000, 1.962}};
  for (const auto& [degrees, t] : at_95) EXPECT_NEAR(student_t(0.95, degrees), t, 0.0006) << degrees;
  EXPECT_NEAR(student_t(0.99, 1), 63.657, 0.0006);
  EXPECT_NEAR(student_t(0.99, 6), 3.707, 0.0006);
}

ComparedRun run_of_seed(const std::string& name, uint64_t seed, double validation) {
  ComparedRun run = run_with_losses(name, {4 + validation, 3});
  run.config.run.seed = seed;
  run.history.validations = {{1, 100, {{.loss = 9}}}, {2, 200, {{.loss = validation}}}};
  return run;
}

TEST(Seeds, PairsOfEqualSeedsGiveAnInterval) {
  const std::vector<ComparedRun> bases = {run_of_seed("a1", 1, 2.0), run_of_seed("a2", 2, 2.5),
                                          run_of_seed("a3", 3, 2.25), run_of_seed("a9", 9, 5)};
  const std::vector<ComparedRun> runs = {run_of_seed("b3", 3, 2.75), run_of_seed("b1", 1, 2.25),
                                         run_of_seed("b2", 2, 2.75), run_of_seed("b8", 8, 5)};
  const SeedComparison comparison = compare_seeds(bases, runs);
  ASSERT_EQ(comparison.pairs.size(), 3U);
  EXPECT_EQ(comparison.unpaired, (std::vector<std::string>{"/a9", "/b8"}));
  // Gaps 0.25, 0.25 and 0.5: mean 1/3, deviation sqrt(1/48), t of two degrees 4.3027.
  const SeedGap& gap = comparison.validation.value();
  EXPECT_EQ(gap.tokens, 200U);
  EXPECT_NEAR(gap.gap, 1.0 / 3, 1e-12);
  EXPECT_NEAR(gap.relative, 1.0 / 3 / 2.25, 1e-12);
  EXPECT_NEAR(gap.low.value(), 1.0 / 3 - 4.302653 * std::sqrt(1.0 / 48 / 3), 1e-6);
  EXPECT_NEAR(gap.high.value(), 1.0 / 3 + 4.302653 * std::sqrt(1.0 / 48 / 3), 1e-6);

  EXPECT_FALSE(compare_seeds({bases[0]}, {runs[1]}).validation.value().low);
  EXPECT_THROW(compare_seeds({bases[0], bases[0]}, runs), Error);
  EXPECT_THROW(compare_seeds({bases[3]}, runs), Error);
}

TEST(Comparison, OnlyCommonStepsCount) {
  const Comparison comparison =
      compare_runs(run_with_losses("base", std::vector<double>(30, 2)), run_with_losses("short", {2, 2, 2, 3}));
  EXPECT_EQ(comparison.common_steps, 4U);
  EXPECT_EQ(comparison.fractions.back().absolute, 1);
}

TEST(Comparison, ValidationDecidesWhereBothHaveIt) {
  ComparedRun base = run_with_losses("base", {5, 4});
  ComparedRun run = run_with_losses("run", {5.5, 4.5});
  base.history.validations = {{1, 100, {{.loss = 4.0}}}, {2, 200, {{.loss = 3.0}}}};
  run.history.validations = {{1, 100, {{.loss = 4.4}}}};
  const Comparison comparison = compare_runs(base, run);
  EXPECT_NEAR(comparison.final_gap().relative, 0.1, 1e-12);
  EXPECT_EQ(comparison.final_gap().tokens, 100U);
}

TEST(Comparison, NothingInCommonIsAnError) {
  EXPECT_THROW(compare_runs(run_with_losses("base", {1}), run_with_losses("empty", {})), Error);
}

TEST(Comparison, OtherSeedIsAnObstacle) {
  ComparedRun base = run_with_losses("base", {1});
  ComparedRun run = run_with_losses("run", {1});
  EXPECT_TRUE(comparison_obstacles(base, run).empty());
  run.config.run.seed += 1;
  EXPECT_EQ(comparison_obstacles(base, run).size(), 1U);
  run.config.train.tokens_per_step += 1;
  EXPECT_EQ(comparison_obstacles(base, run).size(), 2U);
  run.config.recipe.name = "another";
  EXPECT_EQ(comparison_obstacles(base, run).size(), 2U);
}

TEST(Comparison, SmoothingIsUnbiasedFromTheFirstPoint) {
  for (const double value : smoothed(std::vector<double>(20, 3.0), 10)) EXPECT_NEAR(value, 3, 1e-12);
  // A step that was not applied has no loss; the curve continues after it.
  EXPECT_NEAR(smoothed({3, std::nan(""), 3, 3}, 10).back(), 3, 1e-12);
}

}  // namespace
}  // namespace nibble
