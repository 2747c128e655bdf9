#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "dist/base/error.h"
#include "dist/base/file.h"
#include "dist/base/file_system.h"
#include "dist/base/log.h"
#include "trainer/commands/commands.h"
#include "trainer/page/figure.h"
#include "trainer/page/page.h"
#include "trainer/report/comparison.h"
#include "trainer/report/comparison_text.h"
#include "trainer/report/seed_comparison.h"

namespace nibble {

namespace {

struct CompareOptions {
  std::string base;
  std::vector<std::string> runs;
  std::vector<std::string> bases, paired_runs;  // of several seeds
  bool json = false;
  bool allow_different = false;
  std::string relative_gap;
  std::string report;  // HTML path
  std::string output;  // of the figure
};

// Reads a share that is written as "5%" or "0.05".
double parse_share(std::string text) {
  const bool percent = !text.empty() && text.back() == '%';
  if (percent) text.pop_back();
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0) {
    throw Error(ExitCode::usage, fmt::format("--assert-relative-gap: \"{}\" is not a share", text), "write 5% or 0.05");
  }
  return percent ? value / 100 : value;
}

void refuse_unlike(const ComparedRun& base, const ComparedRun& run, bool allow) {
  const std::vector<std::string> obstacles = comparison_obstacles(base, run);
  if (obstacles.empty()) return;
  std::string text;
  for (const std::string& obstacle : obstacles) text += (text.empty() ? "" : "; ") + obstacle;
  if (!allow) {
    throw Error(ExitCode::bad_config, "these runs did not see the same training: " + text,
                "train both with the same data, seed, batch, schedule and model, or pass --allow-different");
  }
  log_warning("comparing runs that did not see the same training: {}", text);
}

std::filesystem::path report_path(const CompareOptions& options, const ComparedRun& last_run) {
  if (options.report.empty()) return last_run.directory / "compare.html";
  std::filesystem::path path = options.report;
  if (path.extension() == ".svg") {
    throw Error(ExitCode::usage, fmt::format("--report {}: the SVG goes beside the HTML report", options.report),
                "name the HTML file");
  }
  if (path.has_parent_path()) make_directories(path.parent_path());
  return path;
}

void assert_gap(const std::string& run, const std::string& base, double relative, double bound) {
  if (relative <= bound) return;
  throw Error(ExitCode::numerics,
              fmt::format("{} ends {:+.2f} % above {}, more than the asserted {:.2f} %", run, 100 * relative, base,
                          100 * bound),
              "look at the report, or assert a larger gap");
}

void write_report(const CompareOptions& options, const std::vector<ComparedRun>& runs,
                  const std::vector<ComparedPair>& pairs, const std::optional<SeedGap>& seed_gap) {
  if (!options.output.empty()) {
    write_figure(options.output, runs, pairs);
    if (!options.json) fmt::print("figure: {}\n", options.output);
    if (options.report.empty()) return;
  }
  const std::filesystem::path html = report_path(options, runs.back());
  const std::filesystem::path svg = std::filesystem::path(html).replace_extension(".svg");
  std::vector<ShownPair> shown;
  for (const ComparedPair& pair : pairs) shown.push_back({.base = pair.base, .run = pair.run});
  write_file(html, report_page("compare", runs, shown, seed_gap));
  write_file(svg, draw_figure(runs, pairs, FigureKind::svg));
  if (!options.json) fmt::print("report: {}\n        {}\n", html.string(), svg.string());
}

std::vector<ComparedRun> load_runs(const std::vector<std::string>& directories) {
  std::vector<ComparedRun> runs;
  for (const std::string& directory : directories) runs.push_back(load_run(directory));
  return runs;
}

// Compares runs with one baseline.
void compare_with_base(const CompareOptions& options, const std::optional<double>& bound) {
  std::vector<ComparedRun> runs{load_run(options.base)};
  for (ComparedRun& run : load_runs(options.runs)) runs.push_back(std::move(run));
  std::vector<ComparedPair> pairs;
  nlohmann::json json = nlohmann::json::array();
  for (size_t i = 1; i < runs.size(); ++i) {
    refuse_unlike(runs.front(), runs[i], options.allow_different);
    pairs.push_back({0, i, compare_runs(runs.front(), runs[i])});
    json.push_back(comparison_json(runs.front(), runs[i], pairs.back().comparison));
    if (!options.json) fmt::print("{}\n", comparison_table(runs.front(), runs[i], pairs.back().comparison));
  }
  if (options.json) {
    fmt::print("{}\n", json.dump(2));
  } else {
    fmt::print("{}\n", one_seed_text());
  }
  write_report(options, runs, pairs, std::nullopt);
  if (!bound) return;
  for (const ComparedPair& pair : pairs) {
    assert_gap(runs[pair.run].name, runs.front().name, pair.comparison.final_gap().relative, *bound);
  }
}

// Runs of one side must differ in their seeds alone, or their gaps would not be gaps of one thing.
void refuse_mixed(const std::vector<ComparedRun>& side, bool allow) {
  for (const ComparedRun& run : side) {
    for (const ConfigDifference& difference : differences_of(side.front(), run)) {
      if (difference.resume == ResumeClass::free || difference.key == "run.seed" || difference.key == "data.train")
        continue;
      const std::string text = fmt::format("{} and {} differ in {}: {} and {}", side.front().directory.string(),
                                           run.directory.string(), difference.key, difference.before, difference.after);
      if (!allow) {
        throw Error(ExitCode::bad_config, text,
                    "name runs of one configuration on each side, or pass --allow-different");
      }
      log_warning("{}", text);
    }
  }
}

// Compares runs of several seeds.
void compare_over_seeds(const CompareOptions& options, const std::optional<double>& bound) {
  const std::vector<ComparedRun> bases = load_runs(options.bases);
  const std::vector<ComparedRun> runs = load_runs(options.paired_runs);
  refuse_mixed(bases, options.allow_different);
  refuse_mixed(runs, options.allow_different);
  const SeedComparison comparison = compare_seeds(bases, runs);
  for (const ComparedPair& pair : comparison.pairs) {
    refuse_unlike(comparison.runs[pair.base], comparison.runs[pair.run], options.allow_different);
  }
  fmt::print("{}\n", options.json ? seed_json(comparison).dump(2) : seed_table(comparison));
  write_report(options, comparison.runs, comparison.pairs, comparison.validation);
  if (!bound) return;
  if (!comparison.validation) {
    throw Error(ExitCode::bad_data, "there is no gap in validation loss to assert",
                "validate all runs after the same number of tokens (eval.every)");
  }
  assert_gap("--run", "--base", comparison.validation->relative, *bound);
}

void run_compare(const CompareOptions& options) {
  std::optional<double> bound;
  if (!options.relative_gap.empty()) bound = parse_share(options.relative_gap);
  const bool one_base = !options.base.empty() && !options.runs.empty();
  const bool seeds = !options.bases.empty() && !options.paired_runs.empty();
  if (one_base == seeds || (seeds && !options.base.empty())) {
    throw Error(ExitCode::usage, "compare needs a baseline and a run",
                "nibble compare BASE RUN..., or nibble compare --base A1 A2 A3 --run B1 B2 B3");
  }
  seeds ? compare_over_seeds(options, bound) : compare_with_base(options, bound);
}

}  // namespace

void add_compare_options(CLI::App& command) {
  auto options = std::make_shared<CompareOptions>();
  command.add_option("BASE", options->base, "Run directory of the baseline");
  command.add_option("RUN", options->runs, "Run directories to compare with it");
  command.add_option("--base", options->bases, "Run directories of the baseline with several seeds");
  command.add_option(
      "--run", options->paired_runs,
      "Run directories to compare with them; runs of equal run.seed form pairs, whose gaps give an interval");
  command.add_flag("--json", options->json, "Print JSON instead of tables");
  command.add_flag("--allow-different", options->allow_different,
                   "Compare although data, seed, batch, schedule or model differ");
  command.add_option("--assert-relative-gap", options->relative_gap,
                     "Exit with 77 if a run ends further above the baseline than this (5% or 0.05)");
  command.add_option("--report", options->report,
                     "Where to write the HTML report (the SVG goes beside it); by default "
                     "compare.html in the last run's directory");
  command.add_option("--output", options->output,
                     "Where to write the figure, as SVG, PNG or PDF by its name; without --report there is then no "
                     "HTML report");
  command.footer(
      "Example:\n  nibble compare runs/quickstart/bf16 runs/quickstart/nvfp4 --assert-relative-gap 5%\n"
      "  nibble compare --base bf16-1 bf16-2 bf16-3 --run nvfp4-1 nvfp4-2 nvfp4-3");
  command.final_callback([options] { run_compare(*options); });
}

}  // namespace nibble
