#include "trainer/checkpoint/checkpoint_directory.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <optional>
#include <system_error>

#include "dist/base/error.h"
#include "dist/base/file.h"
#include "dist/base/file_descriptor.h"
#include "dist/base/log.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/manifest.h"

namespace nibble {

namespace {

constexpr std::string_view step_prefix = "step-";

// Returns the step of a name that step_directory_name() made, or nothing for another name.
std::optional<uint64_t> step_of(const std::string& name) {
  if (!name.starts_with(step_prefix)) return std::nullopt;
  uint64_t step = 0;
  const char* end = name.data() + name.size();
  const auto [stop, error] = std::from_chars(name.data() + step_prefix.size(), end, step);
  if (error != std::errc() || stop != end || step_directory_name(step) != name) return std::nullopt;
  return step;
}

std::optional<Manifest> good_manifest(const std::filesystem::path& directory) {
  try {
    const std::filesystem::path path = directory / "manifest.json";
    return parse_manifest(read_file(path, max_manifest_bytes), path);
  } catch (const Error&) {
    return std::nullopt;
  }
}

}  // namespace

std::string step_directory_name(uint64_t step) {
  return fmt::format("{}{:08}", step_prefix, step);
}

std::vector<StepDirectory> list_checkpoints(const std::filesystem::path& run_directory) {
  std::vector<StepDirectory> found;
  std::error_code error;
  std::filesystem::directory_iterator entries(run_directory / "checkpoints", error);
  for (; !error && entries != std::filesystem::directory_iterator(); entries.increment(error)) {
    std::error_code ignored;
    const std::optional<uint64_t> step = step_of(entries->path().filename().string());
    const bool is_link = entries->is_symlink(ignored);
    if (step && (is_link || entries->is_directory(ignored))) found.push_back({*step, entries->path(), is_link});
  }
  if (error && error != std::errc::no_such_file_or_directory) {
    fail_system_call("list", run_directory / "checkpoints", error.value());
  }
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.step > b.step; });
  return found;
}

std::filesystem::path checkpoint_of_step(const std::filesystem::path& run_directory, uint64_t step) {
  constexpr size_t most_named = 100;
  const std::vector<StepDirectory> checkpoints = list_checkpoints(run_directory);
  std::vector<uint64_t> steps;
  for (const StepDirectory& checkpoint : checkpoints) {
    if (checkpoint.step == step) return checkpoint.path;
    if (steps.size() < most_named) steps.insert(steps.begin(), checkpoint.step);
  }
  const std::string where = run_directory.string();
  if (steps.empty()) {
    throw Error(ExitCode::missing_input, fmt::format("there is no checkpoint in {}", where),
                "name a run directory with a checkpoint");
  }
  throw Error(ExitCode::missing_input, fmt::format("there is no checkpoint of step {} in {}", step, where),
              fmt::format("{} of step{} {}{}", steps.size() == 1 ? "there is that" : "there are those",
                          steps.size() == 1 ? "" : "s", fmt::join(steps, ", "),
                          checkpoints.size() > most_named
                              ? fmt::format(", and {} earlier ones", checkpoints.size() - most_named)
                              : ""));
}

std::filesystem::path written_checkpoint(const std::filesystem::path& written) {
  const std::string text = written.string();
  const size_t at = text.rfind('@');
  std::error_code ignored;
  if (at == std::string::npos || std::filesystem::exists(written, ignored)) return written;
  uint64_t step = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data() + at + 1, end, step);
  const std::string run_directory = text.substr(0, at);
  if (error != std::errc() || stop != end || !std::filesystem::is_directory(run_directory, ignored)) return written;
  return checkpoint_of_step(run_directory, step);
}

std::optional<std::filesystem::path> set_aside(const std::filesystem::path& checkpoint, std::string_view suffix) {
  std::string name = fmt::format("{}.{}", checkpoint.string(), suffix);
  for (int number = 2; std::filesystem::exists(std::filesystem::symlink_status(name)); ++number) {
    name = fmt::format("{}.{}.{}", checkpoint.string(), suffix, number);
  }
  if (std::rename(checkpoint.c_str(), name.c_str()) != 0) return std::nullopt;
  return name;
}

std::vector<std::filesystem::path> list_set_aside(const std::filesystem::path& run_directory) {
  std::vector<std::filesystem::path> found;
  std::error_code error;
  std::filesystem::directory_iterator entries(run_directory / "checkpoints", error);
  for (; !error && entries != std::filesystem::directory_iterator(); entries.increment(error)) {
    const std::string name = entries->path().filename().string();
    const size_t dot = name.find('.');
    if (dot == std::string::npos || !step_of(name.substr(0, dot))) continue;
    const std::string suffix = name.substr(dot + 1);
    if (suffix.starts_with("abandoned") || suffix.starts_with("corrupt")) found.push_back(entries->path());
  }
  std::ranges::sort(found);
  return found;
}

std::vector<uint64_t> abandon_checkpoints_after(const std::filesystem::path& run_directory, uint64_t step) {
  std::vector<uint64_t> steps;
  for (const StepDirectory& checkpoint : list_checkpoints(run_directory)) {
    if (checkpoint.step <= step) break;  // the newest come first
    if (!set_aside(checkpoint.path, "abandoned")) fail_system_call("rename", checkpoint.path, errno);
    steps.insert(steps.begin(), checkpoint.step);
  }
  if (!steps.empty()) sync_path(run_directory / "checkpoints");
  return steps;
}

uint64_t best_step(const std::filesystem::path& run_directory) {
  for (const StepDirectory& checkpoint : list_checkpoints(run_directory)) {
    if (const std::optional<Manifest> manifest = good_manifest(checkpoint.path)) {
      return manifest->info.number(best_step_number);
    }
  }
  return 0;
}

std::vector<StepDirectory> surplus_checkpoints(const std::filesystem::path& run_directory, uint64_t newest,
                                               const Retention& retention) {
  std::vector<StepDirectory> surplus;
  uint64_t kept = 1;  // `newest` itself
  for (const StepDirectory& checkpoint : list_checkpoints(run_directory)) {
    if (checkpoint.step >= newest || checkpoint.is_link || !good_manifest(checkpoint.path)) continue;
    const bool milestone = retention.keep_every != 0 && checkpoint.step % retention.keep_every == 0;
    const bool best = retention.best != 0 && checkpoint.step == retention.best;
    if (kept < retention.keep_last) {
      ++kept;
    } else if (!milestone && !best) {
      surplus.push_back(checkpoint);
    }
  }
  return surplus;
}

// Renames the checkpoint to a temporary name, so that it disappears for every reader at once, and then removes its
// files.
bool remove_checkpoint(const StepDirectory& checkpoint) {
  const std::filesystem::path doomed = checkpoint.path.parent_path() / (std::string(temporary_prefix) + "removed-" +
                                                                        step_directory_name(checkpoint.step));
  remove_tree(doomed);
  if (std::rename(checkpoint.path.c_str(), doomed.c_str()) != 0 || !remove_tree(doomed)) {
    log_warning("cannot remove the old checkpoint {}", checkpoint.path.string());
    return false;
  }
  return true;
}

void prune_checkpoints(const std::filesystem::path& run_directory, uint64_t newest, const Retention& retention) {
  for (const StepDirectory& checkpoint : surplus_checkpoints(run_directory, newest, retention)) {
    remove_checkpoint(checkpoint);
  }
}

void remove_leftovers(const std::filesystem::path& run_directory) {
  std::error_code error;
  std::vector<std::filesystem::path> leftovers;
  std::filesystem::directory_iterator entries(run_directory / "checkpoints", error);
  for (; !error && entries != std::filesystem::directory_iterator(); entries.increment(error)) {
    if (entries->path().filename().string().starts_with(temporary_prefix)) leftovers.push_back(entries->path());
  }
  for (const std::filesystem::path& path : leftovers) {
    if (!remove_tree(path)) log_warning("cannot remove {}, left by an interrupted run", path.string());
  }
}

}  // namespace nibble
