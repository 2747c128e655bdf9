#include "trainer/report/comparison.h"

#include <gtest/gtest.h>

#include <cmath>

#include "dist/base/error.h"
#include "trainer/report/report.h"

namespace nibble {
namespace {

ComparedRun run_with_losses(const std::string& name, const std::vector<double>& losses) {
  ComparedRun run{.directory = "/" + name, .name = name, .config = {}, .history = {}};
  for (size_t i = 0; i < losses.size(); ++i) {
    run.history.steps.push_back({.step = i + 1, .tokens = (i + 1) * 100, .loss = losses[i], .tokens_per_second = 50});
  }
  return run;
}

TEST(Comparison, GapAndPairedStandardErrorOfAKnownSeries) {
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
  EXPECT_NEAR(gap.standard_error, 0.1, 1e-12);  // deviation sqrt(2 * 0.1^2) over sqrt(2)
  EXPECT_EQ(comparison.fractions.front().absolute, 0);
}

TEST(Comparison, OnlyCommonStepsCount) {
  const Comparison comparison =
      compare_runs(run_with_losses("base", std::vector<double>(30, 2)), run_with_losses("short", {2, 2, 2, 3}));
  EXPECT_EQ(comparison.common_steps, 4U);
  EXPECT_EQ(comparison.fractions.back().absolute, 1);
}

TEST(Comparison, ValidationDecidesWhereBothHaveIt) {
  ComparedRun base = run_with_losses("base", {5, 4});
  ComparedRun run = run_with_losses("run", {5, 4});
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
}

// A step that was not applied has no loss; the curve continues after it.
TEST(Report, AStepWithoutALossIsNoHoleInTheCurves) {
  const double none = std::nan("");
  EXPECT_NEAR(smoothed({3, none, 3, 3}, 10).back(), 3, 1e-12);
  const ComparedRun base = run_with_losses("base", {4, 3, 2});
  for (const std::vector<double>& losses : {std::vector<double>{4, none, 2}, {none, 3, 2}, {none, none, none}}) {
    const ComparedRun run = run_with_losses("run", losses);
    const std::string svg = report_svg(make_report({base, run}, {compare_runs(base, run)}));
    EXPECT_EQ(svg.find("nan"), std::string::npos);
    EXPECT_EQ(svg.find("inf"), std::string::npos);
    EXPECT_LT(svg.size(), 10000U);
  }
}

TEST(Report, SkippedStepsAreCounted) {
  const ComparedRun base = run_with_losses("base", {4, 3, 2});
  ComparedRun run = run_with_losses("run", {4, std::nan(""), 2});
  run.history.steps[1].applied = false;
  const std::string html = report_html(make_report({base, run}, {compare_runs(base, run)}));
  EXPECT_NE(html.find("<td>3<td>"), std::string::npos);
  EXPECT_NE(html.find("<td>3 (1 skipped)<td>"), std::string::npos);
}

TEST(Report, NamesCannotBreakOutOfThePage) {
  const ComparedRun base = run_with_losses("</script><b>&\"", {3, 2});
  const ComparedRun run = run_with_losses("run", {3, 2.5});
  const Report report = make_report({base, run}, {compare_runs(base, run)});
  const std::string html = report_html(report);
  EXPECT_EQ(html.find("</script><b>"), std::string::npos);
  EXPECT_NE(html.find("&lt;/script&gt;"), std::string::npos);
  EXPECT_EQ(html.find("http://"), html.find("http://www.w3.org"));  // the page loads nothing from the network
  const std::string svg = report_svg(report);
  EXPECT_EQ(svg.find("<b>"), std::string::npos);
  // Two loss curves and one gap.
  size_t curves = 0;
  for (size_t at = svg.find("<polyline"); at != std::string::npos; at = svg.find("<polyline", at + 1)) ++curves;
  EXPECT_EQ(curves, 3U);
}

}  // namespace
}  // namespace nibble
