#include "trainer/page/figure.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <set>

#include "dist/base/error.h"
#include "dist/base/file.h"

namespace nibble {
namespace {

ComparedRun run_of(const std::string& name, const std::vector<double>& losses) {
  ComparedRun run{.directory = "/" + name, .name = name, .config = {}, .history = {}};
  for (size_t i = 0; i < losses.size(); ++i) {
    run.history.steps.push_back({.step = i + 1, .tokens = (i + 1) * 100, .loss = losses[i], .tokens_per_second = 50});
  }
  return run;
}

// A curve that falls from 10 to 4, with noise of the run's own.
ComparedRun falling_run(const std::string& name, size_t steps, double noise) {
  std::vector<double> losses;
  for (size_t i = 0; i < steps; ++i) {
    losses.push_back(4 + 6 * std::exp(-static_cast<double>(i) / 50) + noise * std::sin(static_cast<double>(i * i)));
  }
  ComparedRun run = run_of(name, losses);
  for (size_t i = 99; i < steps; i += 100) {
    run.history.validations.push_back({i + 1, (i + 1) * 100, {{.loss = losses[i]}}});
  }
  return run;
}

size_t occurrences(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

TEST(Figure, TicksAreRoundNumbers) {
  EXPECT_EQ(round_ticks(0, 10, 7), (std::vector<double>{0, 2, 4, 6, 8, 10}));
  EXPECT_EQ(round_ticks(3.1, 5.6, 8), (std::vector<double>{3.5, 4, 4.5, 5, 5.5}));
  EXPECT_EQ(round_ticks(0, 819200, 7), (std::vector<double>{0, 200000, 400000, 600000, 800000}));
  EXPECT_EQ(round_ticks(-11.6, 0.5, 5), (std::vector<double>{-10, -5, 0}));
  for (const double high : {0.0011, 0.013, 1.0, 7.3, 99.0, 12345.0}) {
    for (const int most : {3, 5, 8}) {
      const std::vector<double> ticks = round_ticks(high / 3, high, most);
      EXPECT_LE(ticks.size(), static_cast<size_t>(most));
      ASSERT_GE(ticks.size(), 1U) << high << " " << most;
      EXPECT_GE(ticks.front(), high / 3 * (1 - 1e-9));
      EXPECT_LE(ticks.back(), high * (1 + 1e-9));
      if (ticks.size() < 2) continue;
      const double step = ticks[1] - ticks[0];
      const double digit = step / std::pow(10, std::floor(std::log10(step) + 1e-9));
      EXPECT_TRUE(std::abs(digit - 1) < 1e-6 || std::abs(digit - 2) < 1e-6 || std::abs(digit - 5) < 1e-6) << digit;
    }
  }
}

TEST(Figure, AMovingMeanHasNoLag) {
  std::vector<double> line;
  for (int i = 0; i < 50; ++i) line.push_back(100 - i);
  const std::vector<double> means = moving_mean(line, 10);
  for (size_t i = 0; i < line.size(); ++i) EXPECT_NEAR(means[i], line[i], i < 45 ? 1e-12 : 2.6) << i;
  const double none = std::nan("");
  EXPECT_EQ(moving_mean({2, none, 4}, 2)[1], 3);
  EXPECT_TRUE(std::isnan(moving_mean({none, none}, 3)[0]));
  EXPECT_TRUE(moving_mean({}, 3).empty());
}

TEST(Figure, TwentyRunsHaveTwentyStyles) {
  std::set<std::tuple<double, double, double, std::vector<double>, int>> styles;
  for (size_t i = 0; i < 20; ++i) {
    const CurveStyle style = curve_style(i);
    styles.insert({style.red, style.green, style.blue, style.dashes, style.marker});
  }
  EXPECT_EQ(styles.size(), 20U);
}

TEST(Figure, EachKindIsOfItsKindAndHasTheSameBytesAgain) {
  const std::vector<ComparedRun> runs{falling_run("base", 3000, 0.1), falling_run("run", 3000, 0.2)};
  const std::vector<ComparedPair> pairs{{0, 1, compare_runs(runs[0], runs[1])}};
  for (const auto& [kind, beginning] :
       {std::pair{FigureKind::svg, "<?xml"}, {FigureKind::png, "\x89PNG"}, {FigureKind::pdf, "%PDF-"}}) {
    const std::string figure = draw_figure(runs, pairs, kind);
    EXPECT_EQ(figure.substr(0, std::string(beginning).size()), beginning);
    EXPECT_TRUE(figure == draw_figure(runs, pairs, kind)) << beginning;
    EXPECT_TRUE(is_figure(figure));
    EXPECT_FALSE(figure == draw_figure({runs[1], runs[0]}, {{0, 1, compare_runs(runs[1], runs[0])}}, kind));
    EXPECT_LT(figure.size(), 600000U);  // of thousands of steps, no more points than one can see
  }
}

TEST(Figure, ShowsEachRunEachValidationAndEachGap) {
  const std::vector<ComparedRun> runs{falling_run("base", 400, 0.1), falling_run("run", 400, 0.2)};
  const std::vector<ComparedPair> pairs{{0, 1, compare_runs(runs[0], runs[1])}};
  const std::string alone = draw_figure({runs[0]}, {}, FigureKind::svg);
  const std::string both = draw_figure(runs, {}, FigureKind::svg);
  const std::string compared = draw_figure(runs, pairs, FigureKind::svg);
  const std::string blue = "stroke:rgb(0%,44.705882%,69.803922%)";
  const std::string vermilion = "stroke:rgb(83.529412%,36.862745%,0%)";
  // Of each run: the steps, their mean and the line of the legend; of the pair, its gap.
  EXPECT_EQ(occurrences(alone, blue), 3U);
  EXPECT_EQ(occurrences(alone, vermilion), 0U);
  EXPECT_EQ(occurrences(both, vermilion), 3U);
  EXPECT_EQ(occurrences(compared, blue), 3U);
  EXPECT_EQ(occurrences(compared, vermilion), 4U);
  EXPECT_EQ(occurrences(alone, "fill:rgb(0%,44.705882%,69.803922%)"), 4U);
  EXPECT_EQ(occurrences(both, "fill:rgb(83.529412%,36.862745%,0%)"), 4U);
}

TEST(Figure, StepsWithoutALossAndRunsWithoutStepsAreDrawn) {
  const double none = std::nan("");
  const ComparedRun base = run_of("base", {4, 3, 2});
  for (const std::vector<double>& losses : {std::vector<double>{4, none, 2}, {none, 3, 2}, {none, none, none}, {}}) {
    for (const std::string name : {"run", "</svg><b>&\"\x92\xC3", ""}) {
      const ComparedRun run = run_of(name, losses);
      std::vector<ComparedPair> pairs;
      if (!losses.empty()) pairs.push_back({0, 1, compare_runs(base, run)});
      const std::string svg = draw_figure({base, run}, pairs, FigureKind::svg);
      EXPECT_EQ(svg.find("nan"), std::string::npos);
      EXPECT_EQ(svg.find("inf"), std::string::npos);
      EXPECT_EQ(svg.find("<b>"), std::string::npos);
    }
  }
  EXPECT_TRUE(is_figure(draw_figure({}, {}, FigureKind::png)));
}

TEST(Figure, TheColumnOfNamesHasRoom) {
  std::vector<ComparedRun> runs;
  for (int i = 0; i < 30; ++i) runs.push_back(falling_run("a-rather-long-name-" + std::to_string(i), 50, 0.1));
  const std::string svg = draw_figure(runs, {}, FigureKind::svg);
  EXPECT_GT(std::stod(svg.substr(svg.find("height=\"") + 8)), 30 * 12);
}

TEST(Figure, OnlyAFigureIsReplaced) {
  const std::filesystem::path path = std::filesystem::path(testing::TempDir()) / "figure_test.svg";
  std::filesystem::remove(path);
  const std::vector<ComparedRun> runs{run_of("run", {4, 3})};
  write_figure(path, runs, {});
  write_figure(path, runs, {});
  write_file(path, "<svg/>");
  const auto refused = [&](const std::filesystem::path& name) {
    try {
      write_figure(name, runs, {});
    } catch (const Error& error) {
      return error.code();
    }
    return ExitCode::ok;
  };
  EXPECT_EQ(refused(path), ExitCode::cannot_create);
  EXPECT_EQ(read_file(path, 100), "<svg/>");
  EXPECT_EQ(refused("figure.jpg"), ExitCode::usage);
  EXPECT_EQ(refused("figure"), ExitCode::usage);
}

}  // namespace
}  // namespace nibble
