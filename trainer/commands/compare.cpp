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
#include "trainer/report/comparison.h"
#include "trainer/report/report.h"

namespace nibble {

namespace {

struct CompareOptions {
  std::string base;
  std::vector<std::string> runs;
  bool json = false;
  bool allow_different = false;
  std::string relative_gap;
  std::string report;  // HTML path
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

nlohmann::json gap_json(const Gap& gap) {
  return {{"tokens", gap.tokens},     {"base_loss", gap.base_loss}, {"run_loss", gap.run_loss},
          {"absolute", gap.absolute}, {"relative", gap.relative},   {"standard_error", gap.standard_error},
          {"steps", gap.steps}};
}

nlohmann::json comparison_json(const ComparedRun& base, const ComparedRun& run, const Comparison& comparison) {
  nlohmann::json fractions = nlohmann::json::array();
  for (const Gap& gap : comparison.fractions) fractions.push_back(gap_json(gap));
  nlohmann::json object = {{"base", base.directory.string()},
                           {"run", run.directory.string()},
                           {"common_steps", comparison.common_steps},
                           {"throughput_ratio", comparison.throughput_ratio},
                           {"fractions", fractions}};
  if (comparison.validation) object["validation"] = gap_json(*comparison.validation);
  return object;
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

void assert_gap(const std::vector<ComparedRun>& runs, const std::vector<Comparison>& comparisons, double bound) {
  for (size_t i = 0; i < comparisons.size(); ++i) {
    const Gap& gap = comparisons[i].final_gap();
    if (gap.relative <= bound) continue;
    throw Error(ExitCode::numerics,
                fmt::format("{} ends {:+.2f} % above {}, more than the asserted {:.2f} %", runs[i + 1].name,
                            100 * gap.relative, runs.front().name, 100 * bound),
                "look at the report, or assert a larger gap");
  }
}

void run_compare(const CompareOptions& options) {
  std::optional<double> bound;
  if (!options.relative_gap.empty()) bound = parse_share(options.relative_gap);
  std::vector<ComparedRun> runs{load_run(options.base)};
  for (const std::string& directory : options.runs) runs.push_back(load_run(directory));
  const std::filesystem::path html = report_path(options, runs.back());
  std::vector<Comparison> comparisons;
  nlohmann::json json = nlohmann::json::array();
  for (size_t i = 1; i < runs.size(); ++i) {
    refuse_unlike(runs.front(), runs[i], options.allow_different);
    comparisons.push_back(compare_runs(runs.front(), runs[i]));
    json.push_back(comparison_json(runs.front(), runs[i], comparisons.back()));
    if (!options.json) fmt::print("{}\n", comparison_table(runs.front(), runs[i], comparisons.back()));
  }
  const std::filesystem::path svg = std::filesystem::path(html).replace_extension(".svg");
  const Report report = make_report(runs, comparisons);
  write_file(html, report_html(report));
  write_file(svg, report_svg(report));
  if (options.json) {
    fmt::print("{}\n", json.dump(2));
  } else {
    fmt::print("report: {}\n        {}\n", html.string(), svg.string());
  }
  if (bound) assert_gap(runs, comparisons, *bound);
}

}  // namespace

void add_compare_options(CLI::App& command) {
  auto options = std::make_shared<CompareOptions>();
  command.add_option("BASE", options->base, "Run directory of the baseline")->required();
  command.add_option("RUN", options->runs, "Run directories to compare with it")->required();
  command.add_flag("--json", options->json, "Print JSON instead of tables");
  command.add_flag("--allow-different", options->allow_different,
                   "Compare although data, seed, batch, schedule or model differ");
  command.add_option("--assert-relative-gap", options->relative_gap,
                     "Exit with 77 if a run ends further above the baseline than this (5% or 0.05)");
  command.add_option("--report", options->report,
                     "Where to write the HTML report (the SVG goes beside it); by default "
                     "compare.html in the last run's directory");
  command.footer("Example:\n  nibble compare runs/quickstart/bf16 runs/quickstart/nvfp4 --assert-relative-gap 5%");
  command.final_callback([options] { run_compare(*options); });
}

}  // namespace nibble
