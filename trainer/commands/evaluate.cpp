#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "dist/base/signals.h"
#include "dist/base/text.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/commands/commands.h"
#include "trainer/inference/inference_model.h"
#include "trainer/rank_main.h"
#include "trainer/report/metrics.h"
#include "trainer/run/validation.h"

namespace nibble {

namespace {

struct EvaluateOptions {
  std::string path;
  std::vector<std::string> overrides;
  bool json = false;
};

ExitCode evaluate(Communicator& communicator, const RunConfig& /*of the run directory*/,
                  const EvaluateOptions& options) {
  const CheckpointInfo checkpoint = open_checkpoint(communicator, options.path);
  std::unique_ptr<InferenceModel> inference;
  std::unique_ptr<Loader> loader;
  const RunConfig config = config_of_checkpoint(checkpoint, parse_overrides(options.overrides));
  run_together(communicator, [&] {
    if (config.data.validation.empty()) {
      throw Error(ExitCode::bad_config, "this run has no validation data",
                  "name shards: --set data.validation=DIR/validation-*.bin");
    }
    loader = std::make_unique<Loader>(config.data.validation, static_cast<uint32_t>(config.model.sequence_length),
                                      config.run.seed, /*shuffle=*/false);
    check_vocabulary(config, "the validation shards", loader->vocab_size());
    inference = std::make_unique<InferenceModel>(checkpoint, config, config.train.micro_batch_sequences);
  });
  MicroBatch micro_batch({.sequences = config.train.micro_batch_sequences,
                          .sequence_length = config.model.sequence_length,
                          .document_mask = config.data.document_mask});
  const std::optional<double> loss =
      validation_loss(communicator, inference->model(),
                      {.loader = *loader,
                       .sequences = static_cast<uint64_t>(config.eval.sequences),
                       .micro_batch_sequences = static_cast<uint64_t>(config.train.micro_batch_sequences),
                       .seed = config.run.seed,
                       .step = checkpoint.step},
                      micro_batch, stop_requested);
  if (!loss) throw AgreedError(ExitCode::start_again, "stopped before the end of the validation set", "run it again");
  if (communicator.rank() != 0) return ExitCode::ok;
  if (options.json) {
    const nlohmann::json result = {{"checkpoint", checkpoint.directory.string()},
                                   {"step", checkpoint.step},
                                   {"tokens", checkpoint.tokens},
                                   {"loss", *loss},
                                   {"loss_hex", hexadecimal_bits(*loss)},
                                   {"perplexity", std::exp(*loss)}};
    fmt::print("{}\n", result.dump(2));
  } else {
    fmt::print("{}\nstep {}, {} tokens\nvalidation loss {:.4f} nats a token, perplexity {:.2f}, loss_hex {}\n",
               checkpoint.directory.string(), checkpoint.step, with_thousands(checkpoint.tokens), *loss,
               std::exp(*loss), hexadecimal_bits(*loss));
  }
  return ExitCode::ok;
}

}  // namespace

void add_evaluate_options(CLI::App& command) {
  auto options = std::make_shared<EvaluateOptions>();
  command.add_option("RUN_DIR", options->path, "Directory of a run (its newest checkpoint) or of one checkpoint")
      ->required();
  command.add_option("--set", options->overrides, "Override a key: --set data.validation=other/validation-*.bin")
      ->allow_extra_args(false);
  command.add_flag("--json", options->json, "Print JSON");
  command.footer("Example:\n  mpirun -n 2 nibble evaluate runs/nvfp4");
  command.final_callback([options] {
    throw CLI::RuntimeError(rank_main(
        [&] { return config_beside(options->path, parse_overrides(options->overrides)); },
        [&](Communicator& communicator, const RunConfig& config) { return evaluate(communicator, config, *options); }));
  });
}

}  // namespace nibble
