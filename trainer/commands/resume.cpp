#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "dist/base/log.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/commands/commands.h"
#include "trainer/inference/inference_model.h"
#include "trainer/rank_main.h"
#include "trainer/run/run_directory.h"
#include "trainer/run/run_profile.h"
#include "trainer/run/training_loop.h"

namespace nibble {

namespace {

struct ResumeOptions {
  std::string run_directory;
  std::vector<std::string> overrides;
  bool profile = false;
};

// Reads the configuration of the run and sets run.dir to the directory's present path, as it may have been moved.
RunConfig config_of_run(const ResumeOptions& options) {
  const std::filesystem::path path = std::filesystem::absolute(options.run_directory).lexically_normal();
  if (std::filesystem::exists(path / "manifest.json")) {
    throw Error(ExitCode::missing_input, fmt::format("{} is one checkpoint, not a run directory", path.string()),
                "name the run directory that its checkpoints/ lies in");
  }
  const std::vector<ConfigOverride> overrides = parse_overrides(options.overrides);
  RunConfig config = config_beside(path, with_profile(options.profile, overrides));
  for (const ConfigOverride& assignment : overrides) {
    if (assignment.key != "run.dir") continue;
    throw Error(ExitCode::bad_config, fmt::format("{}: a run is resumed where it lies", assignment.source),
                "leave run.dir out; to move a run, move its directory and resume it there");
  }
  config.run.dir = path;
  return config;
}

// Checks that the data is the checkpoint's. The shards may have been moved, but their contents must be the same.
void check_data(const CheckpointInfo& checkpoint, const TrainingSession& session) {
  const std::vector<std::string>& allowed = session.config().resume.allow;
  if (checkpoint.data.fingerprint == session.data_fingerprint()) return;
  if (std::find(allowed.begin(), allowed.end(), "data.train") != allowed.end()) return;
  throw Error(ExitCode::bad_config,
              fmt::format("the training shards are not those of the checkpoint (fingerprint {}, then {})",
                          session.data_fingerprint(), checkpoint.data.fingerprint),
              "restore the shards, or go on with others on purpose: --set 'resume.allow=[data.train]'");
}

// Returns the samples that a run with this configuration has read after `step` steps.
uint64_t samples_after(const RunConfig& config, uint64_t step) {
  return step * static_cast<uint64_t>(config.samples_per_step());
}

// Checks that the checkpoint's run has read as many samples as its steps take. A run that takes other steps from now on
// (resume.allow) counts its samples as if it always had: some are read twice, or never.
void check_position(const CheckpointInfo& checkpoint, const RunConfig& before, const RunConfig& config) {
  const uint64_t read = checkpoint.data.next_sample;
  if (read != samples_after(before, checkpoint.step)) {
    throw Error(
        ExitCode::bad_data,
        fmt::format("the checkpoint {} says that {} samples have been read, but {} steps of its configuration "
                    "read {}",
                    checkpoint.directory.string(), read, checkpoint.step, samples_after(before, checkpoint.step)),
        "use another checkpoint");
  }
  const uint64_t next = samples_after(config, checkpoint.step);
  if (next == read && config.model.sequence_length == before.model.sequence_length) return;
  log_warning(
      "the run has read {} samples of {} tokens and goes on with sample {} of {} tokens: its steps have changed", read,
      before.model.sequence_length, next, config.model.sequence_length);
}

ExitCode resume_run(Communicator& communicator, const RunConfig& config) {
  const RunDirectory directory = RunDirectory::open(communicator, config.run.dir);
  const CheckpointInfo checkpoint = find_checkpoint(communicator, directory.path(), DamagedCheckpoint::set_aside);
  run_together(communicator, [&] {
    RunConfig before = parse_run_config_text(checkpoint.config_yaml, checkpoint.directory / "config.yaml");
    before.run.dir = config.run.dir;
    before.data.train = config.data.train;  // paths may differ: check_data() compares the contents
    check_resume(before, config);
    check_position(checkpoint, before, config);
  });
  log_info("resuming   {} (step {}, {} tokens, saved by {} ranks)", checkpoint.directory.string(), checkpoint.step,
           checkpoint.tokens, checkpoint.ranks);
  TrainingSession session(communicator, config, RunStart::resumed);
  run_together(communicator, [&] {
    check_data(checkpoint, session);
    // Written after all checks, so that a mistake in an override does not stay in the run directory.
    if (communicator.rank() == 0) directory.write_config(resolved_yaml(config));
  });
  return run_training(communicator, session, directory, checkpoint);
}

}  // namespace

void add_resume_options(CLI::App& command) {
  auto options = std::make_shared<ResumeOptions>();
  command.add_option("RUN_DIR", options->run_directory, "Directory of the run (run.dir)")->required();
  command
      .add_option("--set", options->overrides,
                  "Override a key: --set train.stop_at=0; keys that change the numbers must be named in resume.allow")
      ->allow_extra_args(false);
  command.add_flag("--profile", options->profile,
                   "Where the time goes, in the log and in profile.json (profile.every)");
  command.footer(
      "Example:\n  mpirun -n 4 nibble resume runs/nvfp4        (any number of ranks: the losses have the same bits)");
  command.final_callback(
      [options] { throw CLI::RuntimeError(rank_main([&] { return config_of_run(*options); }, resume_run)); });
}

}  // namespace nibble
