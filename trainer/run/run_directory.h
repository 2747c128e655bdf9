// The directory of a run: who may write there, and what lies where. Rank 0 of the one run that trains holds the lock.
#pragma once

#include <filesystem>
#include <string>

#include "dist/ranks/communicator.h"

namespace nibble {

// An exclusive lock on a file that names its holder (process, host, start time, as JSON). The kernel frees it when the
// holder ends, however that happens, so a lock left by a dead process is simply taken over.
class DirectoryLock {
 public:
  DirectoryLock() = default;  // holds nothing
  // ExitCode::directory_in_use naming the holder; ExitCode::cannot_create if the file cannot be written.
  explicit DirectoryLock(const std::filesystem::path& lock_file);
  ~DirectoryLock();
  DirectoryLock(DirectoryLock&& other) noexcept;
  DirectoryLock& operator=(DirectoryLock&& other) noexcept;

  bool held() const { return descriptor_ >= 0; }

 private:
  void release() noexcept;
  int descriptor_ = -1;
};

class RunDirectory {
 public:
  // Collective. Takes the lock for a new run: creates the directory and what belongs in it, proves that it can be
  // written, and writes config.yaml. ExitCode::cannot_create if it cannot be written or holds a run already (a
  // checkpoint or metrics), ExitCode::directory_in_use if another process trains there.
  static RunDirectory create(Communicator& communicator, const std::filesystem::path& path,
                             const std::string& config_yaml);
  // Collective. Takes the lock of an existing run. ExitCode::missing_input if there is no such directory; else as
  // create.
  static RunDirectory open(Communicator& communicator, const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path config_file() const { return path_ / "config.yaml"; }
  std::filesystem::path metrics_file() const { return path_ / "metrics.jsonl"; }
  std::filesystem::path tensorboard() const { return path_ / "tensorboard"; }
  std::filesystem::path checkpoints() const { return path_ / "checkpoints"; }
  // Which algorithms multiply on the GPU: quant/gemm/gemm_provider.h.
  std::filesystem::path product_plan() const { return path_ / "gemm_plan.txt"; }
  std::filesystem::path heartbeat() const { return path_ / "heartbeat"; }

  // Replaces config.yaml (a resumed run whose free keys changed). Rank 0 only.
  void write_config(const std::string& config_yaml) const;

 private:
  explicit RunDirectory(std::filesystem::path path) : path_(std::move(path)) {}
  void take_lock();
  std::filesystem::path path_;
  DirectoryLock lock_;  // held by rank 0
};

}  // namespace nibble
