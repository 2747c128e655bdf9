#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "dist/base/error.h"
#include "dist/base/file.h"
#include "dist/device/thread_pool.h"
#include "dist/ranks/communicator.h"
#include "trainer/bench/bench_kernels.h"
#include "trainer/bench/bench_report.h"
#include "trainer/commands/commands.h"
#include "trainer/config/recipe/recipe_file.h"

namespace nibble {
namespace {

struct BenchOptions {
  std::string json;  // a file; "-" = standard output; empty = no JSON
  std::string only;
  std::vector<std::string> recipes = {"nvfp4"};
  int threads = 0;  // 0 = all
  bool quick = false;
  bool full = false;
};

constexpr const char* peaks_name = "peak";

void check(const BenchOptions& options) {
  const std::string mistake = options.only.empty() ? std::string() : case_globs_mistake(options.only);
  if (!mistake.empty()) {
    throw Error(ExitCode::usage, fmt::format("--only \"{}\" {}", options.only, mistake),
                "write a name of the tables, a part of one, or a pattern such as 'gemm/nvfp4/*'");
  }
  if (under_launcher()) {
    throw Error(ExitCode::usage, "nibble bench measures one process", "start it without mpirun");
  }
}

std::vector<LayerShape> layer_shapes(bool quick) {
  if (quick) return {{512, 512, 256}};
  return {{1024, 3072, 768}, {1024, 768, 3072}, {4096, 1536, 512},
          {4096, 2048, 512}, {4096, 512, 2048}, {2048, 512, 4096}};
}

class Bench {
 public:
  explicit Bench(const BenchOptions& options) : options_(options) {
    report_.processor = processor_name();
    report_.instruction_set = name_of(instruction_set());
    report_.available_threads = available_threads(1);
    const int threads = options.threads > 0 ? options.threads : report_.available_threads;
    report_.settings.threads = {1};
    if (threads > 1) report_.settings.threads.push_back(threads);
    report_.settings.rounds = options.quick ? 3 : 9;
    report_.settings.sample_seconds = options.quick ? 1e-3 : 3e-3;
    set_compute_threads(threads);
    // Opened before the measurements, which take minutes, so that a file which cannot be written is reported at once.
    if (!options.json.empty() && options.json != "-") json_ = std::make_unique<OutputFile>(options.json);
  }

  void run() {
    say(machine_text(report_));
    const int most_threads = report_.settings.threads.back();
    const Recipe recipe = load_recipe("nvfp4");
    measure_cases({.title = peaks_name, .cases = {}, .memory = {}});
    measure_cases(gemm_cases(layer_shapes(options_.quick), recipe.linear));
    measure_cases(options_.quick ? quantize_cases(1024, 512) : quantize_cases(8192, 768));
    measure_cases(operator_cases(options_.quick, most_threads));
    measure_models();
    if (found_ == 0) {
      throw Error(ExitCode::usage, fmt::format("--only \"{}\" matches nothing", options_.only),
                  "nibble bench --quick prints the names");
    }
    write_json();
  }

 private:
  bool is_wanted(std::string_view name) const { return options_.only.empty() || case_matches(options_.only, name); }
  void say(const std::string& text) const {
    if (options_.json == "-") return;
    fmt::print("{}", text);
    std::fflush(stdout);
  }

  void measure_cases(BenchGroup group) {
    const bool peaks = group.title == peaks_name;
    if (peaks) {
      const std::vector<TimedCase> cases = peak_cases(memory_);
      const bool wanted =
          std::any_of(cases.begin(), cases.end(), [&](const TimedCase& c) { return is_wanted(c.name); });
      if (!wanted) return;
    } else {
      if (!options_.only.empty()) group.keep_only(options_.only);
      if (group.cases.empty()) return;
    }
    ++found_;
    report_.groups.push_back(measure(group, memory_, report_.settings));
    if (report_.groups.size() == 1) say(peaks_text(report_.groups.back()));
    if (!peaks) say(group_text(report_.groups.back()));
  }

  void measure_models() {
    const int rounds = options_.quick ? 3 : 7;
    const double budget_seconds = options_.quick ? 1 : 20;
    for (const BenchModel& model : bench_models(options_.quick, options_.full)) {
      if (!is_wanted(model.name)) continue;
      if (report_.training.empty()) {
        say(fmt::format("\ntraining steps, {} threads\n", report_.settings.threads.back()));
      }
      ++found_;
      report_.training.push_back(measure_training(model, options_.recipes, rounds, budget_seconds));
      say(training_text(report_.training.back()));
    }
  }

  void write_json() {
    if (options_.json.empty()) return;
    const std::string text = to_json(report_).dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
    if (options_.json == "-") {
      fmt::print("{}", text);
    } else {
      json_->write_at(0, std::as_bytes(std::span(text)));
      json_->publish();
    }
  }

  const BenchOptions& options_;
  BenchReport report_;
  PeakMemory memory_;
  std::unique_ptr<OutputFile> json_;  // null unless --json names a file
  int found_ = 0;                     // number of groups and models that were measured
};

void run_bench(const BenchOptions& options) {
  check(options);
  Bench(options).run();
}

}  // namespace

void add_bench_options(CLI::App& command) {
  auto options = std::make_shared<BenchOptions>();
  command.add_option("--json", options->json, "Write everything as JSON to this file; - for standard output alone");
  command.add_option("--only", options->only, "Glob on the names of the tables: 'gemm/*', attention, train/d384");
  command.add_option("--threads", options->threads, "Threads to measure besides one (default: all)")
      ->check(CLI::Range(1, 4096));
  command.add_option("--recipe", options->recipes, "Recipes to train with, beside bf16 (names or files)")
      ->capture_default_str();
  command.add_flag("--quick", options->quick, "Small shapes and few rounds: rough figures in some seconds");
  command.add_flag("--full", options->full, "Also a model of the dimensions of GPT-2 124M");
  command.footer(
      "Examples:\n"
      "  nibble bench --json bench.json\n"
      "  nibble bench --only 'gemm/nvfp4/*' --threads 1\n"
      "Rates of one thread are by its processor time, others by wall time; cases take turns and medians count.");
  command.final_callback([options] { run_bench(*options); });
}

}  // namespace nibble
