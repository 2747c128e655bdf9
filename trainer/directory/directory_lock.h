// A lock that lets only one process work in a directory.
//
// The kernel keeps the lock (flock) and frees it when the holder ends, even by a crash. Some network file systems have
// no such locks. There a file NAME.held stands for the lock: it can be created once only, and its holder touches it
// every second. A file that nobody has touched for `patience` belongs to a dead process and is replaced; the times are
// those of the file system, so the clocks of the machines do not matter. A process that is stopped for longer than that
// loses the lock; it notices when it goes on, and says so.
#pragma once

#include <chrono>
#include <filesystem>
#include <memory>
#include <string>

namespace nibble {

struct DirectoryLockOptions {
  std::string remedy;                 // of the error that the directory is in use
  std::chrono::seconds patience{15};  // see above
  bool kernel_locks = true;           // for tests: false = as if the file system had none
};

// The lock file names its holder (process, host, start time, as JSON) and is removed when the lock is freed. A file
// that a dead process has left does not block the next one.
class DirectoryLock {
 public:
  DirectoryLock();  // holds nothing
  // Takes the lock. Throws ExitCode::directory_in_use, naming the holder, or ExitCode::cannot_create if the file cannot
  // be written. Warns where the file system has no locks.
  DirectoryLock(const std::filesystem::path& lock_file, const DirectoryLockOptions& options);
  ~DirectoryLock();
  DirectoryLock(DirectoryLock&& other) noexcept;
  DirectoryLock& operator=(DirectoryLock&& other) noexcept;

  bool held() const { return state_ != nullptr; }

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace nibble
