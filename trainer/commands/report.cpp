#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "dist/base/file_system.h"
#include "trainer/commands/commands.h"
#include "trainer/page/figure.h"
#include "trainer/page/page.h"

namespace nibble {

namespace {

struct ReportOptions {
  std::vector<std::string> runs;
  std::string output;
};

// Gaps of runs that have no count of tokens in common are left out.
std::vector<ComparedPair> comparable(const std::vector<ComparedRun>& runs) {
  std::vector<ComparedPair> pairs;
  for (size_t i = 1; i < runs.size(); ++i) {
    if (!paired_steps(runs.front(), runs[i]).empty()) pairs.push_back({0, i, compare_runs(runs.front(), runs[i])});
  }
  return pairs;
}

void run_report(const ReportOptions& options) {
  std::vector<ComparedRun> runs;
  std::vector<ShownPair> pairs;
  for (const std::string& directory : options.runs) {
    runs.push_back(load_run(directory));
    if (runs.size() > 1) pairs.push_back({.base = 0, .run = runs.size() - 1});
  }
  const std::filesystem::path path =
      options.output.empty() ? runs.back().directory / "report.html" : std::filesystem::path(options.output);
  if (path.has_parent_path()) make_directories(path.parent_path());
  const std::string kind = path.extension();
  if (kind == ".svg" || kind == ".png" || kind == ".pdf") {
    write_figure(path, runs, comparable(runs));
    fmt::print("figure: {}\n", path.string());
    return;
  }
  write_page(path, report_page("report", runs, pairs));
  fmt::print("report: {}\n", path.string());
}

}  // namespace

void add_report_options(CLI::App& command) {
  auto options = std::make_shared<ReportOptions>();
  command.add_option("RUN", options->runs, "Run directories; gaps are those to the first")->required();
  command.add_option(
      "--output", options->output,
      "Where to write the page, by default report.html in the last run's directory; a name that ends in .svg, "
      ".png or .pdf gets the main figure alone");
  command.footer(
      "Example:\n  nibble report runs/quickstart/nvfp4\n"
      "  nibble report runs/bf16 runs/nvfp4 runs/quartet2 --output report.html\n"
      "  nibble report runs/bf16 runs/nvfp4 --output figure.pdf");
  command.final_callback([options] { run_report(*options); });
}

}  // namespace nibble
