#include "trainer/commands/resume.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "dist/base/log.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/checkpoint_directory.h"
#include "trainer/commands/commands.h"
#include "trainer/directory/journal.h"
#include "trainer/directory/run_directory.h"
#include "trainer/inference/inference_model.h"
#include "trainer/rank_main.h"
#include "trainer/run/run_profile.h"
#include "trainer/run/training_loop.h"

namespace nibble {

namespace {

struct ResumeOptions {
  std::string run_directory;
  std::optional<uint64_t> step;
  std::vector<std::string> overrides;
  bool profile = false;
};

// Reads the configuration of the run, or that of the checkpoint from which it is to go on, and sets run.dir to the
// directory's present path, as it may have been moved.
RunConfig config_of_run(const ResumeOptions& options) {
  const std::filesystem::path path = std::filesystem::absolute(options.run_directory).lexically_normal();
  if (std::filesystem::exists(path / "manifest.json")) {
    throw Error(ExitCode::missing_input, fmt::format("{} is one checkpoint, not a run directory", path.string()),
                "name the run directory that its checkpoints/ lies in");
  }
  const std::vector<ConfigOverride> overrides = parse_overrides(options.overrides);
  RunConfig config = config_beside(options.step ? checkpoint_of_step(path, *options.step) : path,
                                   with_profile(options.profile, overrides));
  for (const ConfigOverride& assignment : overrides) {
    if (assignment.key != "run.dir") continue;
    throw Error(ExitCode::bad_config, fmt::format("{}: a run is resumed where it lies", assignment.source),
                "leave run.dir out; to move a run, move its directory and resume it there");
  }
  config.run.dir = path;
  return config;
}

// Returns whether both configurations have had the same peaks up to the checkpoint. What lies ahead of it may differ:
// the learning rate is a function of the step, so a change that the run accepted after its last checkpoint holds in the
// resumed run from the same step on.
bool same_peaks_before(const RunConfig& a, const RunConfig& b, uint64_t step) {
  const auto before = [&](const RunConfig& config) {
    const std::map<uint64_t, double>& peaks = config.schedule.peaks;
    return std::map(peaks.begin(), peaks.lower_bound(step));
  };
  return before(a) == before(b);
}

void check_steps(const RunConfig& config, const CheckpointInfo& checkpoint) {
  if (static_cast<uint64_t>(config.train.steps) >= checkpoint.step) return;
  throw Error(
      ExitCode::bad_config,
      fmt::format("train.steps is {}, but the checkpoint {} has made {} steps", config.train.steps,
                  checkpoint.directory.string(), checkpoint.step),
      fmt::format("set train.steps to {} or more, or go on from an earlier checkpoint with --step or nibble fork",
                  checkpoint.step));
}

// Warns if the learning rate of the next step is not the one that the schedule so far leads to: a run that is extended
// after its decay, for example, goes back up.
void warn_of_rate(const RunConfig& before, const RunConfig& config, uint64_t step) {
  if (step == 0 || step >= static_cast<uint64_t>(config.train.steps)) return;
  const auto last_step = static_cast<uint64_t>(before.train.steps) - 1;
  const double expected = learning_rate(schedule_config(before), std::min(step, last_step));
  const double next = learning_rate(schedule_config(config), step);
  if (std::abs(next - expected) <= 0.1 * expected) return;
  log_warning("the learning rate jumps from {:.3g} to {:.3g} at step {}: train.steps, schedule or peak have changed",
              expected, next, step + 1);
}

// Returns what the journal keeps of the changes since the checkpoint.
std::vector<ConfigDifference> overrides_of(const RunConfig& before, const RunConfig& config,
                                           const CheckpointInfo& checkpoint, const TrainingData& data) {
  std::vector<ConfigDifference> overrides = config_differences(before, config);
  std::erase_if(overrides, [](const ConfigDifference& difference) { return difference.key == "resume.allow"; });
  const std::string tokenizer = to_hex(data.train().tokenizer_hash());
  if (!checkpoint.data.tokenizer.empty() && checkpoint.data.tokenizer != tokenizer) {
    overrides.push_back({.key = "data.tokenizer", .before = checkpoint.data.tokenizer, .after = tokenizer});
  }
  return overrides;
}

std::vector<uint64_t> steps_after(const std::filesystem::path& run_directory, uint64_t step) {
  std::vector<uint64_t> steps;
  for (const StepDirectory& checkpoint : list_checkpoints(run_directory)) {
    if (checkpoint.step > step) steps.insert(steps.begin(), checkpoint.step);
  }
  return steps;
}

}  // namespace

ExitCode resume_run(Communicator& communicator, const RunConfig& config, std::optional<uint64_t> step) {
  const RunDirectory directory = RunDirectory::open(communicator, config.run.dir);
  const CheckpointInfo checkpoint = step
                                        ? find_checkpoint_of_step(communicator, directory.path(), *step)
                                        : find_checkpoint(communicator, directory.path(), DamagedCheckpoint::set_aside);
  RunConfig before;
  run_together(communicator, [&] {
    before = parse_run_config_text(checkpoint.config_yaml, checkpoint.directory / "config.yaml");
    before.run.dir = config.run.dir;
    RunConfig compared = before;
    compared.data.train = config.data.train;  // TrainingData compares the contents
    if (same_peaks_before(before, config, checkpoint.step)) compared.schedule.peaks = config.schedule.peaks;
    check_resume(compared, config);
    check_steps(config, checkpoint);
  });
  log_info("resuming   {} (step {}, {} tokens, saved by {} ranks)", checkpoint.directory.string(), checkpoint.step,
           checkpoint.tokens, checkpoint.ranks);
  if (checkpoint.step == static_cast<uint64_t>(config.train.steps)) {
    log_info("           it has made all its {} steps", checkpoint.step);
  }
  TrainingSession session(communicator, config, &checkpoint);
  // Written after all checks, so that a mistake in an override does not stay in the run directory.
  on_leader(communicator, [&] {
    warn_of_rate(before, config, checkpoint.step);
    directory.write_config(resolved_yaml(session.config()));
  });
  record_resume(communicator, directory.path(), session.config(), checkpoint,
                overrides_of(before, config, checkpoint, session.data()),
                step ? steps_after(directory.path(), *step) : std::vector<uint64_t>());
  return run_training(communicator, session, directory, checkpoint,
                      step ? LaterCheckpoints::abandon : LaterCheckpoints::leave);
}

void add_resume_options(CLI::App& command) {
  auto options = std::make_shared<ResumeOptions>();
  command.add_option("RUN_DIR", options->run_directory, "Directory of the run (run.dir)")->required();
  command.add_option("--step", options->step,
                     "Go on from the checkpoint of this step, with its configuration, not from the newest; later "
                     "checkpoints are renamed to NAME.abandoned");
  command
      .add_option("--set", options->overrides,
                  "Override a key: --set train.stop_at=0; keys that change the numbers must be named in resume.allow")
      ->allow_extra_args(false);
  command.add_flag("--profile", options->profile,
                   "Where the time goes, in the log and in profile.json (profile.every)");
  command.footer(
      "Examples:\n"
      "  mpirun -n 4 nibble resume runs/nvfp4              (any number of ranks: the losses have the same bits)\n"
      "  mpirun -n 4 nibble resume runs/nvfp4 --step 800   (nibble fork keeps both futures)");
  command.final_callback([options] {
    throw CLI::RuntimeError(rank_main([&] { return config_of_run(*options); },
                                      [&](Communicator& communicator, const RunConfig& config) {
                                        return resume_run(communicator, config, options->step);
                                      }));
  });
}

}  // namespace nibble
