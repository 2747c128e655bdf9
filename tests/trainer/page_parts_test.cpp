#include "trainer/page/page_parts.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "trainer/page/gap_columns.h"
#include "trainer/page/page.h"
#include "trainer/page/step_columns.h"
#include "trainer/page_fixture.h"

namespace nibble {
namespace {

std::vector<double> falling(size_t steps) {
  std::vector<double> losses;
  for (size_t i = 0; i < steps; ++i) losses.push_back(10 - static_cast<double>(i) / static_cast<double>(steps));
  return losses;
}

TEST(StepColumns, AShortRunIsShownStepByStep) {
  const ComparedRun run = run_with_losses("/run", {4, std::nan(""), 2});
  const nlohmann::json columns = step_columns(run.history.steps, thinning_of(3, 1000), 0, 3);
  EXPECT_EQ(columns.at("step"), nlohmann::json({1, 2, 3}));
  EXPECT_EQ(columns.at("tokens"), nlohmann::json({100, 200, 300}));
  EXPECT_EQ(columns.at("seconds"), nlohmann::json({2.0, 4.0, 6.0}));
  EXPECT_EQ(columns.at("loss"), nlohmann::json({4.0, nullptr, 2.0}));
  EXPECT_EQ(columns.at("count"), nlohmann::json({1, 0, 1}));
}

TEST(StepColumns, ALongRunIsThinnedOutAndItsLastStepsAreExact) {
  std::vector<double> losses = falling(100'000);
  losses[50'001] = 99;  // a spike is no less high for it
  const ComparedRun run = run_with_losses("/run", losses);
  const Thinning thinning = thinning_of(losses.size(), 1000);
  EXPECT_EQ(thinning.stride, 128U);
  EXPECT_EQ(thinning.recent % thinning.stride, 0U);
  EXPECT_GE(losses.size() - thinning.recent, 128U);
  const nlohmann::json earlier = step_columns(run.history.steps, thinning, 0, thinning.recent);
  const nlohmann::json recent = step_columns(run.history.steps, thinning, thinning.recent, losses.size());
  EXPECT_LE(earlier.at("step").size() + recent.at("step").size(), 1300U);
  EXPECT_EQ(recent.at("step").size(), losses.size() - thinning.recent);
  EXPECT_EQ(recent.at("step").back(), losses.size());
  EXPECT_EQ(recent.at("loss").back(), short_number(losses.back()));
  double highest = 0;
  size_t steps = recent.at("step").size();
  for (size_t i = 0; i < earlier.at("step").size(); ++i) {
    highest = std::max(highest, earlier.at("loss_high")[i].get<double>());
    steps += earlier.at("count")[i].get<size_t>();
    EXPECT_EQ(earlier.at("step")[i], 128 * (i + 1));
  }
  EXPECT_EQ(highest, 99);
  EXPECT_EQ(steps, losses.size());
}

// Rows before the last steps must not change with each new step, or a live page would have to be sent again.
TEST(StepColumns, EarlierRowsChangeSeldom) {
  for (const size_t steps : {1000U, 5000U, 20'000U}) {
    size_t changes = 0;
    for (size_t more = 1; more < 128; ++more) {
      if (thinning_of(steps + more, 1000) != thinning_of(steps + more - 1, 1000)) ++changes;
    }
    EXPECT_LE(changes, 3U) << steps;
  }
}

TEST(GapColumns, PairsAreFormedByTokens) {
  const ComparedRun base = run_with_losses("/base", {9, 8, 7, 6, 5, 4});
  ComparedRun run = run_with_losses("/run", {9, 7.5, 6, 4.5});
  for (size_t i = 0; i < 4; ++i) run.history.steps[i].tokens = (i + 1) * 150;
  const nlohmann::json gap = gap_columns(base, run, 1000);
  EXPECT_EQ(gap.at("columns").at("tokens"), nlohmann::json({300, 600}));
  EXPECT_EQ(gap.at("columns").at("step"), nlohmann::json({2, 4}));  // the run's own
  EXPECT_EQ(gap.at("columns").at("gap"), nlohmann::json({0.5, 0.5}));
}

TEST(GapColumns, VarianceAndCorrelationAreThoseOfTheGaps) {
  constexpr size_t steps = 20'000;
  ComparedRun base = run_with_losses("/base", std::vector<double>(steps, 5.0));
  ComparedRun run = base;
  ComparedRun slow = base;
  for (size_t i = 0; i < steps; ++i) {
    run.history.steps[i].loss += i % 2 == 0 ? 0.25 : -0.25;
    slow.history.steps[i].loss += i / 8 % 2 == 0 ? 0.25 : -0.25;  // eight steps alike
  }
  const nlohmann::json gap = gap_columns(base, run, 1000);
  EXPECT_EQ(gap.at("columns").at("count").front(), 32);
  EXPECT_NEAR(gap.at("columns").at("gap").front().get<double>(), 0, 1e-12);
  EXPECT_NEAR(gap.at("columns").at("variance").front().get<double>(), 0.0625, 1e-9);
  EXPECT_EQ(gap.at("correlation"), 0.0) << "neighbours that go against each other make no error smaller";
  EXPECT_GT(gap_columns(base, slow, 1000).at("correlation").get<double>(), 0.7);
}

TEST(GapColumns, ValidationsOfOtherTextAndBeforeTheForkAreNoGaps) {
  ComparedRun base = run_with_losses("/base", {5, 4, 3});
  ComparedRun run = run_with_losses("/run", {5, 4, 3.5});
  base.history.validations = {{1, 100, {{.loss = 4.5}}},
                              {3, 300, {{.loss = 3.25}, {.name = "web", .loss = 1, .data_fingerprint = "a"}}}};
  run.history.validations = {{1, 100, {{.loss = 4.5}}},
                             {3, 300, {{.loss = 3.5}, {.name = "web", .loss = 2, .data_fingerprint = "b"}}}};
  const nlohmann::json validations = gap_columns(base, run, 1000).at("validations");
  ASSERT_EQ(validations.size(), 1U);
  EXPECT_EQ(validations[0].at("tokens"), 300);
  EXPECT_EQ(validations[0].at("gap"), 0.25);
}

TEST(PageParts, NamesTellRunsApart) {
  EXPECT_EQ(unique_names({"/runs/a", "/runs/b"}), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(unique_names({"/x/run", "/y/run", "/y/other"}), (std::vector<std::string>{"x/run", "y/run", "other"}));
  EXPECT_EQ(unique_names({"/x/run", "/x/run"}), (std::vector<std::string>{"run", "run (2)"}));
}

TEST(PageParts, SkippedStepsAreCounted) {
  ComparedRun run = run_with_losses("/run", {4, std::nan(""), 2});
  run.history.steps[1].applied = false;
  const nlohmann::json part = run_part({.name = "run", .run = &run}, 1000);
  EXPECT_EQ(part.at("skipped"), 1);
  EXPECT_EQ(part.at("step"), 3);
  EXPECT_EQ(part.at("recent").at("skipped"), nlohmann::json({0, 1, 0}));
}

TEST(PageParts, DifferencesOfConfigurationAreListedByKey) {
  const ComparedRun base = run_with_losses("/base", {4, 3});
  ComparedRun run = run_with_losses("/run", {4.5, 3.5});
  ComparedRun third = run_with_losses("/third", {4.5, 3.5});
  run.config.optimizer.beta1 = 0.75;
  run.config.run.dir = "/elsewhere";
  third.config.telemetry.every = 7;
  const nlohmann::json part = configuration_part(
      {{.name = "base", .run = &base}, {.name = "run", .run = &run}, {.name = "third", .run = &third}});
  EXPECT_EQ(part.at("rows"), nlohmann::json::parse(R"([{"key": "optimizer.beta1", "values": ["0.9", "0.75", "0.9"]},
                                      {"key": "telemetry.every", "values": ["100", "100", "7"]}])"));
  const nlohmann::json alone = configuration_part({{.name = "run", .run = &run}});
  EXPECT_EQ(alone.at("rows"), nlohmann::json::parse(R"([{"key": "optimizer.beta1", "values": ["0.75"]}])"));
}

TEST(PageParts, RunsWithoutCommonTokensAreASentence) {
  const ComparedRun base = run_with_losses("/base", {4, 3});
  ComparedRun run = run_with_losses("/run", {4.5, 3.5});
  for (StepMetrics& step : run.history.steps) step.tokens += 1;
  const std::vector<ShownRun> runs{{.name = "base", .run = &base}, {.name = "run", .run = &run}};
  const nlohmann::json part = comparison_part(runs, {{.base = 0, .run = 1}}, std::nullopt);
  EXPECT_TRUE(part.at("rows").empty());
  EXPECT_NE(part.at("sentences").dump().find("no count of tokens in common"), std::string::npos);
}

TEST(Page, NamesCannotBreakOutOfIt) {
  const ComparedRun base = run_with_losses("/</script><b>&\"'", {3, 2});
  const ComparedRun run = run_with_losses("/not utf-8 \xff", {3, 2.5});
  const std::string html = report_page("report", {base, run}, {{.base = 0, .run = 1}});
  EXPECT_EQ(html.find("</script><b>"), std::string::npos);
  EXPECT_NE(html.find("script&gt;&lt;b&gt;&amp;&quot;&#39;"), std::string::npos);
  EXPECT_EQ(html.find("src=\"http"), std::string::npos);
  const std::string_view begin = "id=\"data\">";
  const size_t at = html.find(begin) + begin.size();
  const auto data = nlohmann::json::parse(html.substr(at, html.find("</script>", at) - at));
  EXPECT_EQ(data.at("page").at("data").at("runs")[0], "script><b>&\"'") << "the last part of the path";
  EXPECT_NE(html.find("connect-src &#39;none&#39;"), std::string::npos);
}

TEST(Page, ALiveOneMayAskItsServerAlone) {
  EXPECT_NE(content_security_policy({.title = "", .nonce = "n", .live = true}).find("connect-src 'self'"),
            std::string::npos);
  EXPECT_NE(content_security_policy({.title = "", .nonce = "n", .live = false}).find("script-src 'nonce-n'"),
            std::string::npos);
}

}  // namespace
}  // namespace nibble
