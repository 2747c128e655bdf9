#include "trainer/commands/resume.h"

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "dist/log.h"
#include "trainer/checkpoint.h"
#include "trainer/inference_model.h"
#include "trainer/rank_main.h"
#include "trainer/run_directory.h"
#include "trainer/training_loop.h"

namespace nibble {

namespace {

struct ResumeOptions {
  std::string run_directory;
  std::vector<std::string> overrides;
};

// The directory may have moved since the run began.
RunConfig config_of_run(const ResumeOptions& options) {
  RunConfig config = config_beside(options.run_directory, options.overrides);
  config.run.dir = std::filesystem::absolute(options.run_directory).lexically_normal();
  return config;
}

ExitCode resume_run(Communicator& communicator, const RunConfig& config) {
  const RunDirectory directory = RunDirectory::open(communicator, config.run.dir);
  const CheckpointInfo checkpoint = find_checkpoint(communicator, directory.path(), DamagedCheckpoint::set_aside);
  run_together(communicator, [&] {
    RunConfig before = parse_run_config_text(checkpoint.config_yaml, checkpoint.directory / "config.yaml");
    before.run.dir = config.run.dir;
    check_resume(before, config);
    if (communicator.rank() == 0) {
      directory.write_config(resolved_yaml(config));
      remove_leftovers(directory.path());
    }
  });
  log_info("resuming   {} (step {}, {} tokens, saved by {} ranks)", checkpoint.directory.string(), checkpoint.step,
           checkpoint.tokens, checkpoint.ranks);
  TrainingSession session(communicator, config);
  return run_training(communicator, session, directory, checkpoint);
}

}  // namespace

void add_resume_command(CLI::App& app) {
  auto options = std::make_shared<ResumeOptions>();
  CLI::App* command = app.add_subcommand("resume", "Continue a run from its newest valid checkpoint");
  command->add_option("RUN_DIR", options->run_directory, "Directory of the run (run.dir)")->required();
  command
      ->add_option("--set", options->overrides,
                   "Override a key: --set train.stop_at=0; keys that change the numbers must be named in resume.allow")
      ->allow_extra_args(false);
  command->footer(
      "Example:\n  mpirun -n 4 nibble resume runs/nvfp4        (any number of ranks: the losses have the same bits)");
  command->final_callback(
      [options] { throw CLI::RuntimeError(rank_main([&] { return config_of_run(*options); }, resume_run)); });
}

}  // namespace nibble
