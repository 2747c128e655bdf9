#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "dist/base/signals.h"
#include "dist/base/text.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/commands/commands.h"
#include "trainer/compute/run_device.h"
#include "trainer/inference/inference_model.h"
#include "trainer/rank_main.h"
#include "trainer/report/metrics.h"
#include "trainer/run/divergence_meter.h"
#include "trainer/run/validation.h"

namespace nibble {

namespace {

struct EvaluateOptions {
  std::string path;
  std::vector<std::string> overrides;
  std::string recipe;
  bool json = false;
  bool any_tokenizer = false;
};

void print_loss(const ValidationLoss& set) {
  const std::string bits = set.bits_per_byte ? fmt::format(", {:.4f} bits a byte", *set.bits_per_byte) : "";
  fmt::print("{}validation loss {:.4f} nats a token{}, perplexity {:.2f}, loss_hex {}\n",
             set.name.empty() ? "" : set.name + ": ", set.loss, bits, std::exp(set.loss), hexadecimal_bits(set.loss));
  if (!set.divergence) return;
  const std::optional<double>& error = set.divergence->standard_error;
  fmt::print("{}KL from the unquantised model {:.4g} nats a token{}\n", set.name.empty() ? "" : set.name + ": ",
             set.divergence->mean,
             error ? fmt::format(", standard error {:.2g} (sequences taken as independent)", *error) : "");
}

std::vector<ConfigOverride> overrides_of(const EvaluateOptions& options) {
  std::vector<ConfigOverride> overrides = parse_overrides(options.overrides);
  // Nothing is kept here, and the sets that are evaluated need not be those of the run.
  overrides.push_back({"checkpoint.keep_best", "\"\"", "nibble evaluate"});
  if (!options.recipe.empty()) overrides.push_back({"recipe", options.recipe, "--recipe " + options.recipe});
  return overrides;
}

// The model with the weights of a checkpoint that no recipe rounds.
std::unique_ptr<InferenceModel> unquantised_model(const CheckpointInfo& checkpoint, RunConfig config) {
  config.recipe = Recipe{.name = "bf16"};
  return std::make_unique<InferenceModel>(checkpoint, config, config.train.micro_batch_sequences);
}

ExitCode evaluate(Communicator& communicator, const RunConfig& /*of the run directory*/,
                  const EvaluateOptions& options) {
  const CheckpointInfo checkpoint = open_checkpoint(communicator, options.path);
  std::unique_ptr<InferenceModel> inference;
  std::unique_ptr<Validation> validation;
  std::unique_ptr<InferenceModel> unquantised;
  std::unique_ptr<DivergenceMeter> meter;  // of the unquantised model
  const RunConfig config = config_of_checkpoint(checkpoint, overrides_of(options));
  run_together(communicator, [&] {
    if (config.data.validation.empty()) {
      throw Error(ExitCode::bad_config, "this run has no validation data",
                  "name shards: --set data.validation=DIR/validation-*.bin");
    }
    validation = std::make_unique<Validation>(config);
    for (const Validation::Set& set : validation->sets()) {
      check_vocabulary(config, "the validation shards", set.loader->vocab_size());
      check_tokenizer(checkpoint, "the validation shards", set.loader->tokenizer_hash(), options.any_tokenizer);
    }
    inference = std::make_unique<InferenceModel>(checkpoint, config, config.train.micro_batch_sequences);
    if (options.recipe.empty()) return;
    unquantised = unquantised_model(checkpoint, config);
    meter = std::make_unique<DivergenceMeter>(unquantised->model(), device_of(config));
  });
  communicator.control().begin(Phase::validation, checkpoint.step);
  const auto losses =
      validation->losses(communicator, inference->model(), checkpoint.step, stop_requested, meter.get());
  if (!losses) throw AgreedError(ExitCode::start_again, "stopped before the end of the validation set", "run it again");
  if (communicator.rank() != 0) return ExitCode::ok;
  if (options.json) {
    nlohmann::json result = to_json(*losses);
    result.update({{"checkpoint", checkpoint.directory.string()},
                   {"step", checkpoint.step},
                   {"tokens", checkpoint.tokens},
                   {"perplexity", std::exp(losses->front().loss)}});
    fmt::print("{}\n", result.dump(2));
    return ExitCode::ok;
  }
  fmt::print("{}\nstep {}, {} tokens\n", checkpoint.directory.string(), checkpoint.step,
             with_thousands(checkpoint.tokens));
  for (const ValidationLoss& set : *losses) print_loss(set);
  return ExitCode::ok;
}

}  // namespace

void add_evaluate_options(CLI::App& command) {
  auto options = std::make_shared<EvaluateOptions>();
  command.add_option("RUN_DIR", options->path, "Directory of a run (its newest checkpoint) or of one checkpoint")
      ->required();
  command.add_option("--set", options->overrides, "Override a key: --set data.validation=other/validation-*.bin")
      ->allow_extra_args(false);
  command.add_option(
      "--recipe", options->recipe,
      "Evaluate with this recipe (as in the key recipe), and print the KL divergence from the unquantised "
      "model to it");
  command.add_flag("--json", options->json, "Print JSON");
  command.add_flag("--any-tokenizer", options->any_tokenizer,
                   "Go on with shards of another tokenizer, whose ids mean other text to the model");
  command.footer("Example:\n  mpirun -n 2 nibble evaluate runs/nvfp4\n  nibble evaluate runs/bf16 --recipe quartet2");
  command.final_callback([options] {
    throw CLI::RuntimeError(rank_main(
        [&] { return config_beside(options->path, overrides_of(*options)); },
        [&](Communicator& communicator, const RunConfig& config) { return evaluate(communicator, config, *options); }));
  });
}

}  // namespace nibble
