#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "dist/base/file.h"
#include "dist/base/file_system.h"
#include "trainer/commands/commands.h"
#include "trainer/page/page.h"

namespace nibble {

namespace {

struct ReportOptions {
  std::vector<std::string> runs;
  std::string output;
};

void run_report(const ReportOptions& options) {
  std::vector<ComparedRun> runs;
  std::vector<ShownPair> pairs;
  for (const std::string& directory : options.runs) {
    runs.push_back(load_run(directory));
    if (runs.size() > 1) pairs.push_back({.base = 0, .run = runs.size() - 1});
  }
  const bool named = !options.output.empty();
  const std::filesystem::path path =
      named ? std::filesystem::path(options.output) : runs.back().directory / "report.html";
  if (named && path.has_parent_path()) make_directories(path.parent_path());
  write_file(path, report_page("report", runs, pairs));
  fmt::print("report: {}\n", path.string());
}

}  // namespace

void add_report_options(CLI::App& command) {
  auto options = std::make_shared<ReportOptions>();
  command.add_option("RUN", options->runs, "Run directories; gaps are those to the first")->required();
  command.add_option("--output", options->output,
                     "Where to write the page; by default report.html in the last run's directory");
  command.footer(
      "Example:\n  nibble report runs/quickstart/nvfp4\n"
      "  nibble report runs/bf16 runs/nvfp4 runs/quartet2 --output report.html");
  command.final_callback([options] { run_report(*options); });
}

}  // namespace nibble
