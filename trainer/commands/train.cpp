#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <vector>

#include "trainer/commands/commands.h"
#include "trainer/commands/resume.h"
#include "trainer/directory/journal.h"
#include "trainer/directory/run_directory.h"
#include "trainer/huggingface/model_source.h"
#include "trainer/inference/inference_model.h"
#include "trainer/rank_main.h"
#include "trainer/run/run_profile.h"
#include "trainer/run/training_loop.h"

namespace nibble {

namespace {

struct TrainOptions {
  std::string config;
  std::vector<std::string> overrides;
  bool profile = false;
  bool continues = false;
};

ExitCode start_run(Communicator& communicator, const RunConfig& config) {
  // Made before the directory, so that a mistake in the data leaves no directory behind.
  TrainingSession session(communicator, config);
  const RunDirectory directory = RunDirectory::create(communicator, config.run.dir, resolved_yaml(session.config()));
  record_start(communicator, directory.path(), session.config());
  return run_training(communicator, session, directory, std::nullopt);
}

// Continues the run in run.dir, or starts it if there is none. What the configuration leaves open is as the run has
// decided it at its start.
ExitCode start_or_continue(Communicator& communicator, RunConfig config) {
  if (!RunDirectory::holds_run(communicator, config.run.dir)) return start_run(communicator, config);
  run_together(communicator, [&] {
    const RunConfig started = config_beside(config.run.dir, {});
    if (config.model.vocab_size == 0) config.model.vocab_size = started.model.vocab_size;
    if (config.train.head_chunk_tokens == 0) config.train.head_chunk_tokens = started.train.head_chunk_tokens;
    // Changes that the run accepted while it trained are not in the file that starts it.
    if (config.schedule.peaks.empty()) config.schedule.peaks = started.schedule.peaks;
    if (config.train.gradient_groups == RunConfig::Train().gradient_groups && started.train.group_micro_batches > 0) {
      config.train.gradient_groups = 0;  // an older version started the run
      config.train.group_micro_batches = started.train.group_micro_batches;
    }
  });
  return resume_run(communicator, config);
}

int run_train(const TrainOptions& options) {
  return rank_main(
      [&] {
        return parse_run_config(options.config, with_profile(options.profile, parse_overrides(options.overrides)),
                                model_at);
      },
      [&](Communicator& communicator, const RunConfig& config) {
        return options.continues ? start_or_continue(communicator, config) : start_run(communicator, config);
      });
}

}  // namespace

void add_train_options(CLI::App& command) {
  auto options = std::make_shared<TrainOptions>();
  command.add_option("CONFIG", options->config, "Configuration of the run (YAML; see nibble config reference)")
      ->required();
  command.add_option("--set", options->overrides, "Override a key: --set train.steps=100 (repeatable)")
      ->allow_extra_args(false);
  command.add_flag("--profile", options->profile,
                   "Where the time goes, in the log and in profile.json (profile.every)");
  command.add_flag("--continue", options->continues,
                   "Start the run, or continue it if run.dir holds it: for jobs that are started again");
  command.footer(
      "Examples:\n"
      "  mpirun -n 2 nibble train configs/runs/quickstart.yaml --set recipe=nvfp4 --set run.dir=runs/nvfp4\n"
      "  scripts/launch.sh -n 2 nibble train run.yaml      (TERM and Ctrl-C save a checkpoint first)\n"
      "  mpirun -n 8 nibble train run.yaml --continue      (the same command starts the run and goes on with it)\n"
      "Exit code 75 means that a checkpoint is saved and the run wants to be resumed.");
  command.final_callback([options] { throw CLI::RuntimeError(run_train(*options)); });
}

}  // namespace nibble
