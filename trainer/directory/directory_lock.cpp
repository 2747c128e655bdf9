#include "trainer/directory/directory_lock.h"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <stop_token>
#include <system_error>
#include <thread>
#include <utility>

#include "dist/base/error.h"
#include "dist/base/file_descriptor.h"
#include "dist/base/log.h"
#include "dist/base/signals.h"
#include "dist/watch/heartbeat.h"

namespace nibble {

namespace {

namespace fs = std::filesystem;

std::string own_entry() {
  const auto now = std::chrono::time_point_cast<std::chrono::seconds>(std::chrono::system_clock::now());
  const nlohmann::ordered_json entry{
      {"pid", getpid()}, {"host", host_name()}, {"started", fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(now))}};
  return entry.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

void write_entry(const FileDescriptor& file, const fs::path& path) {
  const std::string entry = own_entry();
  if (ftruncate(file.get(), 0) != 0) fail_system_call("write", path, errno);
  write_at(file, path, 0, std::as_bytes(std::span(entry)));
}

// Reads the holder from the lock file. The text may be incomplete, if the holder is writing it at this moment.
std::string holder_of(const FileDescriptor& file) {
  std::array<char, 4096> text{};
  const ssize_t length = file.is_open() ? pread(file.get(), text.data(), text.size(), 0) : 0;
  const auto entry = nlohmann::json::parse(text.data(), text.data() + std::max<ssize_t>(length, 0), nullptr, false);
  if (!entry.is_object() || !entry.contains("pid") || !entry["pid"].is_number_integer()) return "another process";
  return fmt::format("process {} on {}, started {}", entry["pid"].get<int64_t>(), entry.value("host", "?"),
                     entry.value("started", "?"));
}

[[noreturn]] void refuse(const fs::path& lock_file, const std::string& holder, const DirectoryLockOptions& options) {
  throw Error(ExitCode::directory_in_use, fmt::format("{} is in use by {}", lock_file.parent_path().string(), holder),
              options.remedy);
}

// Which file it is, and when it was last touched.
struct FileState {
  dev_t device = 0;
  ino_t number = 0;
  timespec touched{};

  bool is_file_of(const FileState& other) const { return device == other.device && number == other.number; }
  bool is_untouched_since(const FileState& other) const {
    return is_file_of(other) && touched.tv_sec == other.touched.tv_sec && touched.tv_nsec == other.touched.tv_nsec;
  }
};

std::optional<FileState> state_of(const FileDescriptor& file) {
  struct stat status {};
  if (!file.is_open() || fstat(file.get(), &status) != 0) return std::nullopt;
  return FileState{status.st_dev, status.st_ino, status.st_mtim};
}

// Opens the file anew: network file systems ask the server for its state only then.
std::optional<FileState> state_of(const fs::path& path) {
  return state_of(FileDescriptor::try_open(path, O_RDONLY | O_NOFOLLOW));
}

constexpr int no_support = 524;  // what some file systems return: ENOTSUPP of the kernel, which has no name outside it

bool means_no_locks(int error) {
  return error == ENOSYS || error == EOPNOTSUPP || error == ENOLCK || error == no_support;
}

struct KernelLock {
  FileDescriptor file;  // not open where the file system has no locks
  int error = 0;        // says so
};

KernelLock lock_in_kernel(const fs::path& path, const DirectoryLockOptions& options) {
  while (true) {
    FileDescriptor file(path, O_RDWR | O_CREAT | O_NOFOLLOW);
    int error = ENOSYS;
    if (options.kernel_locks) error = flock(file.get(), LOCK_EX | LOCK_NB) == 0 ? 0 : errno;
    if (error == EWOULDBLOCK) refuse(path, holder_of(file), options);
    if (means_no_locks(error)) {
      ::unlink(path.c_str());
      return {FileDescriptor(), error};
    }
    if (error != 0) fail_system_call("lock", path, error);
    // A holder removes the file before it frees the lock; whoever locks a removed file tries again.
    const std::optional<FileState> own = state_of(file);
    const std::optional<FileState> current = state_of(path);
    if (own && current && own->is_file_of(*current)) return {std::move(file), 0};
  }
}

bool is_touched(const fs::path& path, const FileState& first, std::chrono::seconds patience) {
  const auto end = std::chrono::steady_clock::now() + patience;
  while (std::chrono::steady_clock::now() < end) {
    const std::optional<FileState> state = state_of(path);
    if (!state || !state->is_untouched_since(first)) return true;  // touched, replaced, or freed
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
  return false;
}

// Removes the file of a dead holder. If another process has put its own in the place at this moment, it goes back
// there.
void remove_abandoned(const fs::path& path, const FileState& abandoned) {
  const fs::path aside = fmt::format("{}.{}.{}", path.string(), host_name(), getpid());
  if (std::rename(path.c_str(), aside.c_str()) != 0) return;  // another process was faster
  const std::optional<FileState> moved = state_of(aside);
  if (moved && !moved->is_file_of(abandoned)) {
    std::rename(aside.c_str(), path.c_str());
  } else {
    ::unlink(aside.c_str());
  }
}

FileDescriptor create_held_file(const fs::path& path, const DirectoryLockOptions& options) {
  constexpr int attempts = 5;
  std::string holder = "another process";
  for (int attempt = 0; attempt < attempts; ++attempt) {
    FileDescriptor file = FileDescriptor::try_open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW);
    if (file.is_open()) return file;
    if (errno != EEXIST) fail_output("create", path, errno);
    const FileDescriptor other = FileDescriptor::try_open(path, O_RDONLY | O_NOFOLLOW);
    const std::optional<FileState> state = state_of(other);
    if (!state) continue;  // freed at this moment
    holder = holder_of(other);
    if (!is_touched(path, *state, options.patience)) {
      log_warning("{} is left from {}, which has not touched it for {} s: it is replaced", path.string(), holder,
                  options.patience.count());
      remove_abandoned(path, *state);
    } else if (state_of(path)) {
      break;
    }
  }
  refuse(path, holder, options);
}

}  // namespace

struct DirectoryLock::State {
  fs::path path;
  FileDescriptor file;
  std::jthread toucher;  // runs only where the file system has no locks

  State(fs::path name, FileDescriptor open_file) : path(std::move(name)), file(std::move(open_file)) {
    write_entry(file, path);
  }
  ~State() {
    if (toucher.joinable()) {
      toucher.request_stop();
      toucher.join();
    }
    if (is_own_file()) ::unlink(path.c_str());
  }

  bool is_own_file() const {
    const std::optional<FileState> own = state_of(file);
    const std::optional<FileState> current = state_of(path);
    return own && current && own->is_file_of(*current);
  }

  void start_to_touch() {
    const BlockSignals block;
    toucher = std::jthread([this](const std::stop_token& stop) {
      std::mutex mutex;
      std::condition_variable_any wake;
      std::unique_lock lock(mutex);
      while (!wake.wait_for(lock, stop, std::chrono::seconds(1), [&] { return stop.stop_requested(); })) {
        if (stop.stop_requested()) return;
        if (is_own_file()) {
          futimens(file.get(), nullptr);
        } else {
          log_error("{} has been replaced or removed: another process may work in this directory; stop one of the two",
                    path.string());
          return;
        }
      }
    });
  }
};

DirectoryLock::DirectoryLock() = default;

DirectoryLock::DirectoryLock(const fs::path& lock_file, const DirectoryLockOptions& options) {
  KernelLock lock = lock_in_kernel(lock_file, options);
  if (lock.file.is_open()) {
    state_ = std::make_unique<State>(lock_file, std::move(lock.file));
    return;
  }
  const fs::path held_file = lock_file.string() + ".held";
  state_ = std::make_unique<State>(held_file, create_held_file(held_file, options));
  state_->start_to_touch();
  log_warning(
      "the file system of {} has no locks (flock: {}): a second process in this directory is noticed only by the file "
      "{}, which this process touches every second; never remove that file while a process works here",
      lock_file.parent_path().string(), std::generic_category().message(lock.error), held_file.filename().string());
}

DirectoryLock::~DirectoryLock() = default;
DirectoryLock::DirectoryLock(DirectoryLock&& other) noexcept = default;
DirectoryLock& DirectoryLock::operator=(DirectoryLock&& other) noexcept = default;

}  // namespace nibble
