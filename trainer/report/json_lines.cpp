#include "trainer/report/json_lines.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string_view>

#include "dist/base/error.h"
#include "dist/base/stopwatch.h"

namespace nibble {

namespace {

// Returns the length of the file up to and including its last newline.
off_t whole_lines(int descriptor) {
  off_t end = lseek(descriptor, 0, SEEK_END);
  char last = '\n';
  while (end > 0 && pread(descriptor, &last, 1, end - 1) == 1 && last != '\n') --end;
  return end;
}

[[noreturn]] void fail_write(const std::filesystem::path& path) {
  throw Error(ExitCode::io, fmt::format("cannot write to {}: {}", path.string(), std::strerror(errno)),
              "free disk space, then resume the run");
}

}  // namespace

JsonLines::JsonLines(const std::filesystem::path& path) : path_(path) {
  descriptor_ = open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (descriptor_ < 0 || ftruncate(descriptor_, whole_lines(descriptor_)) != 0) {
    throw Error(ExitCode::cannot_create, fmt::format("cannot open {}: {}", path.string(), std::strerror(errno)),
                "make the run directory writable, or choose another run.dir");
  }
}

JsonLines::~JsonLines() {
  if (descriptor_ >= 0) close(descriptor_);
}

void JsonLines::write(const nlohmann::json& object) {
  nlohmann::json timed = object;
  timed["time"] = seconds_since_1970();
  const std::string line = timed.dump() + "\n";
  std::string_view rest = line;  // a nearly full disk may take a part; the next write() then reports the error
  while (!rest.empty()) {
    const ssize_t written = ::write(descriptor_, rest.data(), rest.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail_write(path_);
    rest.remove_prefix(static_cast<size_t>(written));
  }
}

void JsonLines::sync() {
  if (fsync(descriptor_) != 0) fail_write(path_);
}

}  // namespace nibble
