#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "dist/base/log.h"
#include "dist/base/signals.h"
#include "trainer/commands/commands.h"
#include "trainer/inference/inference_model.h"
#include "trainer/lab/gradient_bias.h"
#include "trainer/rank_main.h"
#include "trainer/run/training_data.h"

namespace nibble {
namespace {

struct BiasOptions {
  std::string path;
  std::vector<std::string> overrides;
  std::string recipe;
  std::vector<uint64_t> draws = {1, 4, 16, 64, 256};
  uint64_t seed = 1;
  uint64_t sample = 0;
  bool json = false;
  bool any_tokenizer = false;

  // --recipe R is short for --set recipe=R.
  std::vector<ConfigOverride> all_overrides() const {
    std::vector<ConfigOverride> all = parse_overrides(overrides);
    if (!recipe.empty()) all.push_back({.key = "recipe", .value = recipe, .source = "--recipe " + recipe});
    return all;
  }
};

void print_table(const GradientBias& bias, const std::vector<uint64_t>& draws, const RunConfig& config) {
  fmt::print("recipe {}: |mean - G|^2 / |G|^2 after so many backward passes\n", config.recipe.name);
  fmt::print("{:<36}", "");
  for (size_t i = 0; i < bias.mean.error.size(); ++i) fmt::print("{:>11}", draws[i]);
  fmt::print("{:>8}\n", "slope");
  const auto print_row = [&](const GradientBiasCurve& curve) {
    fmt::print("{:<36}", curve.name);
    for (const double error : curve.error) fmt::print("{:>11.2e}", error);
    fmt::print("{:>8.2f}\n", curve.slope);
  };
  for (const GradientBiasCurve& curve : bias.curves) print_row(curve);
  print_row(bias.mean);
  fmt::print("slope -1: the error averages out; towards 0: a bias remains\n");
}

void print_json(const GradientBias& bias, const std::vector<uint64_t>& draws, const RunConfig& config,
                const CheckpointInfo& checkpoint) {
  const auto row = [](const GradientBiasCurve& curve) {
    return nlohmann::json{{"name", curve.name}, {"error", curve.error}, {"slope", curve.slope}};
  };
  nlohmann::json tensors = nlohmann::json::array();
  for (const GradientBiasCurve& curve : bias.curves) tensors.push_back(row(curve));
  const std::vector<uint64_t> reached(draws.begin(), draws.begin() + static_cast<ptrdiff_t>(bias.mean.error.size()));
  const nlohmann::json result = {{"recipe", config.recipe.name},
                                 {"checkpoint", checkpoint.directory.string()},
                                 {"draws", reached},
                                 {"tensors", tensors},
                                 {"geometric_mean", row(bias.mean)}};
  fmt::print("{}\n", result.dump(2));
}

void check_draws(const std::vector<uint64_t>& draws) {
  constexpr uint64_t most = uint64_t{1} << 24;
  const bool ascending = std::is_sorted(draws.begin(), draws.end(), std::less_equal<>());
  if (draws.empty() || !ascending || draws.front() < 1 || draws.back() > most) {
    throw Error(ExitCode::usage, fmt::format("--draws {}", fmt::join(draws, ",")),
                fmt::format("give ascending whole numbers from 1 to {}, for example --draws 1,4,16,64,256", most));
  }
}

ExitCode bias(Communicator& communicator, const BiasOptions& options) {
  const CheckpointInfo checkpoint = open_checkpoint(communicator, options.path);
  if (communicator.rank() != 0) return ExitCode::ok;
  check_draws(options.draws);
  const RunConfig config = config_of_checkpoint(checkpoint, options.all_overrides());
  const std::unique_ptr<Mixture> data = open_training_set(config, static_cast<uint64_t>(config.model.sequence_length));
  check_vocabulary(config, "the training shards", data->vocab_size());
  check_tokenizer(checkpoint, "the training shards", data->tokenizer_hash(), options.any_tokenizer);
  const bool shows_progress = isatty(STDERR_FILENO) != 0;
  const auto progress = [&](uint64_t done) {
    if (shows_progress) fmt::print(stderr, "\r{} of {} passes", done, options.draws.back());
  };
  const GradientBias measured = measure_gradient_bias({.checkpoint = checkpoint,
                                                       .config = config,
                                                       .draws = options.draws,
                                                       .seed = options.seed,
                                                       .sample = options.sample},
                                                      *data, stop_requested, progress);
  if (shows_progress) fmt::print(stderr, "\n");
  const bool complete = measured.draws == options.draws.back();
  if (!complete) log_warning("stopped after {} of {} passes", measured.draws, options.draws.back());
  if (measured.mean.error.empty()) {
    throw Error(ExitCode::start_again, "stopped before the first figure", "run it again, or with smaller --draws");
  }
  options.json ? print_json(measured, options.draws, config, checkpoint) : print_table(measured, options.draws, config);
  return complete ? ExitCode::ok : ExitCode::start_again;
}

}  // namespace

void add_bias_options(CLI::App& command) {
  auto options = std::make_shared<BiasOptions>();
  command.add_option("RUN_DIR", options->path, "Directory of a run (its newest checkpoint) or of one checkpoint")
      ->required();
  command.add_option("--recipe", options->recipe, "Recipe to measure instead of the run's own");
  command.add_option("--draws", options->draws, "After how many backward passes to look at their mean")
      ->delimiter(',')
      ->capture_default_str();
  command.add_option("--seed", options->seed, "Of the passes' random bits")->check(CLI::NonNegativeNumber);
  command.add_option("--sample", options->sample, "First training sample of the micro-batch")
      ->check(CLI::NonNegativeNumber);
  command.add_option("--set", options->overrides, "Override a key: --set train.micro_batch_sequences=1")
      ->allow_extra_args(false);
  command.add_flag("--json", options->json, "Print JSON");
  command.add_flag("--any-tokenizer", options->any_tokenizer,
                   "Go on with shards of another tokenizer, whose ids mean other text to the model");
  command.footer("Example:\n  nibble bias runs/nvfp4 --recipe quartet2 --draws 1,4,16,64");
  command.final_callback([options] {
    throw CLI::RuntimeError(
        rank_main([&] { return config_beside(options->path, options->all_overrides()); },
                  [&](Communicator& communicator, const RunConfig&) { return bias(communicator, *options); }));
  });
}

}  // namespace nibble
