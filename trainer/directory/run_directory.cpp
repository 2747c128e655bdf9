#include "trainer/directory/run_directory.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "dist/base/error.h"
#include "dist/base/file.h"
#include "dist/base/file_system.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/checkpoint_directory.h"

namespace nibble {

namespace {

// Makes and syncs a file, so that a directory where this is impossible is refused at the start and not at the first
// checkpoint.
void probe(const std::filesystem::path& directory) {
  const std::filesystem::path file = directory / fmt::format("{}probe.{}", temporary_prefix, getpid());
  unlink(file.c_str());
  write_new_file(file, "probe\n");
  unlink(file.c_str());
}

void refuse_used(const std::filesystem::path& path) {
  std::error_code error;
  const auto metrics = std::filesystem::file_size(path / "metrics.jsonl", error);
  if (!list_checkpoints(path).empty()) {
    throw Error(ExitCode::cannot_create, fmt::format("{} already holds a run", path.string()),
                fmt::format("continue it with `nibble resume {}` or nibble train --continue, or choose another run.dir",
                            path.string()));
  }
  if (!error && metrics > 0) {
    throw Error(ExitCode::cannot_create,
                fmt::format("{} already holds a run, which ended before its first checkpoint", path.string()),
                "remove the directory, or choose another run.dir");
  }
}

// What is in a run directory before its first checkpoint.
bool is_of_a_start(const std::filesystem::path& path) {
  constexpr std::array<std::string_view, 9> names = {"config.yaml",   "lock",          "lock.held",
                                                     "checkpoints",   "heartbeat",     "tensorboard",
                                                     "metrics.jsonl", "journal.jsonl", "gemm_plan.txt"};
  constexpr std::array<std::string_view, 3> logs = {".log", ".out", ".err"};
  const std::string name = path.filename().string();
  return name.starts_with('.') || std::find(names.begin(), names.end(), name) != names.end() ||
         std::find(logs.begin(), logs.end(), path.extension().string()) != logs.end();
}

bool has_begun(const std::filesystem::path& path) {
  std::error_code error;
  if (std::filesystem::exists(path, error) && !std::filesystem::is_directory(path, error)) {
    throw Error(ExitCode::cannot_create, fmt::format("run.dir {} is not a directory", path.string()),
                "choose another run.dir");
  }
  if (!list_checkpoints(path).empty()) return true;
  for (const std::filesystem::path& directory : {path, path / "checkpoints"}) {
    const bool inner = directory != path;
    for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
      const std::string name = entry.path().filename().string();
      if (inner ? name.starts_with(temporary_prefix) : is_of_a_start(entry.path())) continue;
      throw Error(ExitCode::cannot_create,
                  fmt::format("{} holds no run that could be continued, but {}", path.string(),
                              inner ? "checkpoints/" + name : name),
                  "choose another run.dir, or remove what is there");
    }
    if (error && error != std::errc::no_such_file_or_directory) {
      throw Error(ExitCode::cannot_create, fmt::format("cannot list {}: {}", directory.string(), error.message()),
                  "check its permissions, or choose another run.dir");
    }
  }
  refuse_used(path);
  return false;
}

}  // namespace

bool RunDirectory::holds_run(Communicator& communicator, const std::filesystem::path& path) {
  int64_t begun = 0;
  on_leader(communicator, [&] { begun = has_begun(path) ? 1 : 0; });
  return communicator.host().all_reduce_max(begun) != 0;
}

RunDirectory RunDirectory::create(Communicator& communicator, const std::filesystem::path& path,
                                  const std::string& config_yaml) {
  RunDirectory directory(path);
  on_leader(communicator, [&] {
    directory.take_lock();
    refuse_used(path);
    directory.write_config(config_yaml);
  });
  return directory;
}

RunDirectory RunDirectory::open(Communicator& communicator, const std::filesystem::path& path) {
  RunDirectory directory(path);
  on_leader(communicator, [&] {
    std::error_code ignored;
    if (!std::filesystem::is_directory(path, ignored)) {
      throw Error(ExitCode::missing_input, fmt::format("there is no run directory {}", path.string()),
                  "check the path, or start a new run with nibble train");
    }
    directory.take_lock();
  });
  return directory;
}

void RunDirectory::take_lock() {
  try {
    make_directories(path_);
    lock_ = DirectoryLock(path_ / "lock", {.remedy = "wait for that run to end or stop it, or choose another run.dir"});
    make_directories(checkpoints());
    probe(path_);
  } catch (const Error& error) {
    if (error.code() == ExitCode::directory_in_use || error.code() == ExitCode::io) throw;
    throw Error(ExitCode::cannot_create,
                fmt::format("the run directory {} cannot be used: {}", path_.string(), error.what()),
                "make it writable, or choose another run.dir");
  }
  remove_leftovers(path_);
}

void RunDirectory::write_config(const std::string& config_yaml) const {
  write_file(config_file(), config_yaml);
}

}  // namespace nibble
