// The names in RUN_DIR/checkpoints. A name like step-00000100 is a complete checkpoint; names that start with ".tmp."
// are unfinished or partly removed and are never read.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace nibble {

constexpr std::string_view temporary_prefix = ".tmp.";

std::string step_directory_name(uint64_t step);

struct StepDirectory {
  uint64_t step = 0;
  std::filesystem::path path;
  bool is_link = false;  // a symbolic link to a directory elsewhere
};
// Returns the checkpoints of a run, newest first. A symbolic link to a directory is one, too; links that lead nowhere
// get a warning. Other names are ignored.
std::vector<StepDirectory> list_checkpoints(const std::filesystem::path& run_directory);

// The number in manifests that says which step has the lowest validation loss so far (checkpoint.keep_best).
constexpr std::string_view best_step_number = "best/step";
// Returns that number of the run's newest checkpoint with a good manifest; 0 = none.
uint64_t best_step(const std::filesystem::path& run_directory);

struct Retention;
// Returns the checkpoints that prune_checkpoints() removes, newest first.
std::vector<StepDirectory> surplus_checkpoints(const std::filesystem::path& run_directory, uint64_t newest,
                                               const Retention& retention);
// Removes a checkpoint: it disappears for every reader at once. Returns false, with a warning, if it could not.
bool remove_checkpoint(const StepDirectory& checkpoint);

// Returns the checkpoint of a step. Throws ExitCode::missing_input, naming the steps of those that there are, if the
// run has none of it.
std::filesystem::path checkpoint_of_step(const std::filesystem::path& run_directory, uint64_t step);

// Returns the path that a user means, who may also write RUN_DIR@STEP for a checkpoint of a run; a path that exists as
// it is written is taken as it is. Throws as checkpoint_of_step() does.
std::filesystem::path written_checkpoint(const std::filesystem::path& written);

// Renames a checkpoint to NAME.SUFFIX, or NAME.SUFFIX.2 and so on, so that it is no longer one of the run's; of a link
// the link itself. Returns the new path, or nothing, and errno says why.
std::optional<std::filesystem::path> set_aside(const std::filesystem::path& checkpoint, std::string_view suffix);

// Returns the directories that set_aside() has renamed, by name.
std::vector<std::filesystem::path> list_set_aside(const std::filesystem::path& run_directory);

// Sets aside every checkpoint of a later step, as NAME.abandoned: no resume takes it, and nothing removes it. Returns
// the steps, ascending. Throws ExitCode::io. Called by rank 0, which holds the lock.
std::vector<uint64_t> abandon_checkpoints_after(const std::filesystem::path& run_directory, uint64_t step);

}  // namespace nibble
