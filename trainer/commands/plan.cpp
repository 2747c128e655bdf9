#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "dist/base/error.h"
#include "trainer/commands/commands.h"
#include "trainer/plan/run_plan.h"

namespace nibble {

namespace {

struct PlanOptions {
  PlanRequest request;
  std::optional<double> watts;
  bool json = false;
};

void run_plan(const PlanOptions& options) {
  if (options.watts && (!std::isfinite(*options.watts) || *options.watts <= 0)) {
    throw Error(ExitCode::usage, fmt::format("--watts {}: not a power", *options.watts),
                "give what the device of a rank draws, such as --watts 700");
  }
  const RunPlan plan = make_plan(options.request, options.watts);
  const std::string text = options.json ? plan_json(plan).dump(2) + "\n" : plan_text(plan);
  std::fwrite(text.data(), 1, text.size(), stdout);
}

}  // namespace

void add_plan_options(CLI::App& command) {
  auto options = std::make_shared<PlanOptions>();
  PlanRequest& request = options->request;
  command.add_option("CONFIG", request.config, "Configuration of a run, or a file of configs/models (YAML)")
      ->required();
  command.add_option("--recipe", request.recipe, "Plan with this recipe");
  command.add_option("--ranks", request.ranks, "Ranks of the run")->capture_default_str();
  command.add_option("--device", request.device,
                     fmt::format("What a rank computes on: {}; cpu is this machine, and the default for runs that need "
                                 "no GPU",
                                 fmt::join(names_of_devices(), ", ")));
  command.add_option("--watts", options->watts, "Power that the device of a rank draws, for the energy")
      ->type_name("W");
  command.add_option("--set", request.overrides, "Override a key: --set train.recompute=all (repeatable)")
      ->allow_extra_args(false);
  command.add_flag("--json", options->json, "Print the plan as JSON");
  command.footer(
      "Examples:\n"
      "  nibble plan configs/runs/llama-1.3b-8xb200.yaml --device b200 --ranks 8\n"
      "  nibble plan configs/models/llama-124m.yaml --recipe bf16\n"
      "Reads no data and starts nothing: model.vocab_size must be known. Speed, hours and energy are estimates.");
  command.final_callback([options] { run_plan(*options); });
}

}  // namespace nibble
