#include "trainer/run/run_directory.h"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "dist/base/error.h"
#include "dist/base/file.h"
#include "dist/base/file_descriptor.h"
#include "dist/base/file_system.h"
#include "dist/base/log.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/checkpoint_directory.h"

namespace nibble {

namespace {

std::string host_name() {
  std::array<char, 256> name{};
  return gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "?";
}

std::string own_entry() {
  const auto now = std::chrono::time_point_cast<std::chrono::seconds>(std::chrono::system_clock::now());
  const nlohmann::ordered_json entry{
      {"pid", getpid()}, {"host", host_name()}, {"started", fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(now))}};
  return entry.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

// Reads the holder from the lock file. The text may be incomplete, if the holder is writing it at this moment.
std::string holder_of(int descriptor) {
  std::array<char, 4096> text{};
  const ssize_t length = pread(descriptor, text.data(), text.size(), 0);
  const auto entry = nlohmann::json::parse(text.data(), text.data() + std::max<ssize_t>(length, 0), nullptr, false);
  if (!entry.is_object() || !entry.contains("pid") || !entry["pid"].is_number_integer()) return "another process";
  return fmt::format("process {} on {}, started {}", entry["pid"].get<int64_t>(), entry.value("host", "?"),
                     entry.value("started", "?"));
}

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
                fmt::format("continue it with `nibble resume {}`, or choose another run.dir", path.string()));
  }
  if (!error && metrics > 0) {
    throw Error(ExitCode::cannot_create,
                fmt::format("{} already holds a run, which ended before its first checkpoint", path.string()),
                "remove the directory, or choose another run.dir");
  }
}

}  // namespace

DirectoryLock::DirectoryLock(const std::filesystem::path& lock_file) {
  FileDescriptor file(lock_file, O_RDWR | O_CREAT | O_NOFOLLOW);
  if (flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) fail_system_call("lock", lock_file, errno);
    throw Error(ExitCode::directory_in_use,
                fmt::format("{} is in use by {}", lock_file.parent_path().string(), holder_of(file.get())),
                "wait for that run to end or stop it, or choose another run.dir");
  }
  const std::string entry = own_entry();
  if (ftruncate(file.get(), 0) != 0 || pwrite(file.get(), entry.data(), entry.size(), 0) != std::ssize(entry)) {
    fail_system_call("write", lock_file, errno);
  }
  descriptor_ = file.release();
}

DirectoryLock::~DirectoryLock() {
  release();
}

DirectoryLock::DirectoryLock(DirectoryLock&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}

DirectoryLock& DirectoryLock::operator=(DirectoryLock&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

// Frees the lock but keeps the file: another process may have opened it to lock it, and would then lock a removed file.
void DirectoryLock::release() noexcept {
  if (descriptor_ < 0) return;
  if (ftruncate(descriptor_, 0) != 0) log_warning("cannot empty the lock file");
  close(std::exchange(descriptor_, -1));
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
    lock_ = DirectoryLock(path_ / "lock");
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
