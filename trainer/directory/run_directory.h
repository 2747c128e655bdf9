// The directory of a run: its files, and a lock that lets only one process train there. Rank 0 of the run that trains
// holds the lock.
#pragma once

#include <filesystem>
#include <string>

#include "dist/ranks/communicator.h"
#include "trainer/directory/directory_lock.h"

namespace nibble {

class RunDirectory {
 public:
  // Collective. Creates the directory of a new run and its subdirectories, takes the lock, makes sure that files can be
  // written, and writes config.yaml. Throws ExitCode::cannot_create if the directory cannot be written or holds a run
  // already (a checkpoint or metrics), and ExitCode::directory_in_use if another process trains there.
  static RunDirectory create(Communicator& communicator, const std::filesystem::path& path,
                             const std::string& config_yaml);
  // Collective. Returns whether a run has begun in the directory: true if it has a checkpoint, false if there is
  // nothing, or only what a start leaves that ends before its first checkpoint. Log files (.log, .out, .err) do not
  // count. Throws ExitCode::cannot_create for a directory with anything else, and for a run without any checkpoint.
  // Rank 0 looks, and all ranks get its answer.
  static bool holds_run(Communicator& communicator, const std::filesystem::path& path);
  // Collective. Takes the lock of an existing run. Throws ExitCode::missing_input if there is no such directory,
  // otherwise as create() does.
  static RunDirectory open(Communicator& communicator, const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path config_file() const { return path_ / "config.yaml"; }
  std::filesystem::path metrics_file() const { return path_ / "metrics.jsonl"; }
  std::filesystem::path tensorboard() const { return path_ / "tensorboard"; }
  std::filesystem::path checkpoints() const { return path_ / "checkpoints"; }
  // The GEMM algorithms that the run uses on the GPU (quant/gemm/gemm_backend_kind.h).
  std::filesystem::path gemm_plan() const { return path_ / "gemm_plan.txt"; }
  std::filesystem::path heartbeat() const { return path_ / "heartbeat"; }

  // Replaces config.yaml when free keys have changed in a resumed run. Rank 0 only.
  void write_config(const std::string& config_yaml) const;

 private:
  explicit RunDirectory(std::filesystem::path path) : path_(std::move(path)) {}
  void take_lock();
  std::filesystem::path path_;
  DirectoryLock lock_;  // held by rank 0
};

}  // namespace nibble
