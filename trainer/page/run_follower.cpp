#include "trainer/page/run_follower.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string_view>
#include <system_error>

#include "dist/base/error.h"
#include "dist/base/file_descriptor.h"

namespace nibble {

RunFollower::RunFollower(const std::filesystem::path& directory) {
  const auto normal = std::filesystem::absolute(directory).lexically_normal();
  run_.directory = normal.has_filename() ? normal : normal.parent_path();
  run_.name = run_.directory.filename();
}

bool RunFollower::refresh() {
  problem_.clear();
  bool changed = false;
  std::error_code none;
  if (!std::filesystem::is_directory(run_.directory, none)) {
    problem_ = run_.history.last_time > 0
                   ? "the directory is no longer there: these are the last figures that were read"
                   : "waiting: there is no such directory yet";
  } else {
    changed = read_configuration();
    changed = read_metrics() || changed;
  }
  if (problem_.empty()) problem_ = bad_line_;
  changed = changed || problem_ != message_;
  message_ = problem_;
  return changed;
}

bool RunFollower::read_configuration() {
  const std::filesystem::path path = run_.directory / "config.yaml";
  std::error_code error;
  const auto time = std::filesystem::last_write_time(path, error);
  if (error) {
    if (!configured_) problem_ = "waiting: the run has no config.yaml yet";
    return false;
  }
  if (configured_ && time == configuration_time_) return false;
  try {
    run_.config = parse_run_config(path);
  } catch (const Error& failure) {
    problem_ = failure.what();
    return false;
  }
  configured_ = true;
  configuration_time_ = time;
  return true;
}

bool RunFollower::read_metrics() {
  const std::filesystem::path path = run_.directory / "metrics.jsonl";
  const FileDescriptor file = FileDescriptor::try_open(path, O_RDONLY);
  if (!file.is_open()) {
    if (problem_.empty()) {
      problem_ = errno == ENOENT ? "waiting: the run has no metrics.jsonl yet"
                                 : fmt::format("cannot read metrics.jsonl: {}", std::strerror(errno));
    }
    return false;
  }
  struct stat facts {};
  if (fstat(file.get(), &facts) != 0) return false;
  bool changed = false;
  const auto size = static_cast<uint64_t>(facts.st_size);
  if (facts.st_ino != inode_ || size < offset_) {
    changed = offset_ > 0;
    run_.history = {};
    offset_ = lines_ = 0;
    bad_line_.clear();
    inode_ = facts.st_ino;
  }
  std::string line;
  std::string block(size_t{1} << 20U, '\0');
  for (uint64_t at = offset_; at < size;) {
    const ssize_t got = pread(file.get(), block.data(), block.size(), static_cast<off_t>(at));
    if (got <= 0) break;
    at += static_cast<uint64_t>(got);
    for (const char character : std::string_view(block.data(), static_cast<size_t>(got))) {
      if (character != '\n') {
        line += character;
        continue;
      }
      offset_ += line.size() + 1;
      ++lines_;
      changed = true;
      try {
        add_line(run_.history, line);
      } catch (const nlohmann::json::exception&) {
        bad_line_ = fmt::format("metrics.jsonl:{} is not a line of metrics, and is left out", lines_);
      }
      line.clear();
    }
  }
  return changed;
}

}  // namespace nibble
