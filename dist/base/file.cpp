#include "dist/base/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "dist/base/error.h"

namespace nibble {
namespace {

std::string system_message(int error) {
  return std::generic_category().message(error);
}

[[noreturn]] void fail_open(const std::string& name, int error) {
  if (error == ENOENT || error == ENOTDIR) {
    throw Error(ExitCode::missing_input, fmt::format("{}: no such file", name), "check the path");
  }
  const bool exhausted = error == EMFILE || error == ENFILE;
  throw Error(ExitCode::io, fmt::format("{}: cannot open: {}", name, system_message(error)),
              exhausted ? "raise the limit on open files (ulimit -n), or use fewer, larger shards"
                        : "check the permissions of the file");
}

[[noreturn]] void fail_write(const std::string& name, int error) {
  throw Error(ExitCode::io, fmt::format("{}: cannot write: {}", name, system_message(error)),
              "check the free space and the health of the disk");
}

int open_retrying(const char* path, int flags, mode_t mode = 0) {
  int descriptor = -1;
  do {
    descriptor = ::open(path, flags | O_CLOEXEC, mode);
  } while (descriptor < 0 && errno == EINTR);
  return descriptor;
}

}  // namespace

InputFile::InputFile(const std::filesystem::path& path) : path_(path) {
  // Without O_NONBLOCK, opening a named pipe would block for ever.
  descriptor_ = open_retrying(path.c_str(), O_RDONLY | O_NONBLOCK);
  if (descriptor_ < 0) fail_open(name(), errno);
  struct stat status = {};
  const int error = ::fstat(descriptor_, &status) != 0 ? errno : 0;
  if (error != 0 || !S_ISREG(status.st_mode)) {
    ::close(std::exchange(descriptor_, -1));
    if (error != 0) fail_open(name(), error);
    const bool directory = S_ISDIR(status.st_mode);
    throw Error(ExitCode::missing_input, fmt::format("{}: not a regular file", name()),
                directory ? "this is a directory: name the files in it" : "give a regular file");
  }
  size_ = static_cast<uint64_t>(status.st_size);
}

InputFile::~InputFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

InputFile::InputFile(InputFile&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)), size_(other.size_) {}

size_t InputFile::read_some(uint64_t offset, std::span<std::byte> data) const {
  ssize_t count = 0;
  do {
    count = ::pread(descriptor_, data.data(), data.size(), narrow<off_t>(offset));
  } while (count < 0 && errno == EINTR);
  if (count < 0) {
    throw Error(ExitCode::io, fmt::format("{}: cannot read at byte {}: {}", name(), offset, system_message(errno)),
                "check the disk or the network file system");
  }
  return static_cast<size_t>(count);
}

void InputFile::read(uint64_t offset, std::span<std::byte> data) const {
  while (!data.empty()) {
    const size_t count = read_some(offset, data);
    if (count == 0) {
      throw Error(ExitCode::bad_data, fmt::format("{}: ends at byte {}, while it is being read", name(), offset),
                  "the file was cut or replaced: restore it");
    }
    offset += count;
    data = data.subspan(count);
  }
}

std::string read_file(const std::filesystem::path& path, uint64_t limit) {
  const InputFile file(path);
  if (file.size() > limit) {
    throw Error(ExitCode::bad_data,
                fmt::format("{}: {} bytes, more than the limit of {}", file.name(), file.size(), limit),
                "this is not the file that was meant: check the path");
  }
  std::string content(file.size(), '\0');
  file.read(0, std::as_writable_bytes(std::span(content)));
  return content;
}

OutputFile::OutputFile(const std::filesystem::path& path)
    : path_(path), partial_(path.parent_path() / fmt::format(".{}.partial", path.filename().string())) {
  descriptor_ = open_retrying(partial_.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW, 0666);
  if (descriptor_ < 0) {
    throw Error(ExitCode::cannot_create, fmt::format("{}: cannot create: {}", name(), system_message(errno)),
                "check that the directory exists and may be written");
  }
}

OutputFile::~OutputFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!published_) ::unlink(partial_.c_str());
}

void OutputFile::write_at(uint64_t offset, std::span<const std::byte> data) {
  NIBBLE_CHECK(descriptor_ >= 0, "write after finish");
  while (!data.empty()) {
    const ssize_t count = ::pwrite(descriptor_, data.data(), data.size(), narrow<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) fail_write(name(), count < 0 ? errno : ENOSPC);
    offset += static_cast<uint64_t>(count);
    data = data.subspan(static_cast<size_t>(count));
  }
}

void OutputFile::finish() {
  if (descriptor_ < 0) return;
  if (::fsync(descriptor_) != 0) fail_write(name(), errno);
  if (::close(std::exchange(descriptor_, -1)) != 0) fail_write(name(), errno);
}

void OutputFile::publish() {
  finish();
  if (::rename(partial_.c_str(), path_.c_str()) != 0) {
    throw Error(ExitCode::cannot_create, fmt::format("{}: cannot rename: {}", name(), system_message(errno)),
                "check that the directory may be written");
  }
  published_ = true;
  const std::filesystem::path parent = path_.has_parent_path() ? path_.parent_path() : ".";
  const int directory = open_retrying(parent.c_str(), O_RDONLY | O_DIRECTORY);
  if (directory < 0) fail_write(parent.string(), errno);
  const int error = ::fsync(directory) != 0 ? errno : 0;
  ::close(directory);
  // Some file systems cannot sync a directory; they report EINVAL.
  if (error != 0 && error != EINVAL) fail_write(parent.string(), error);
}

void write_file(const std::filesystem::path& path, std::string_view content) {
  OutputFile file(path);
  file.write_at(0, std::as_bytes(std::span(content)));
  file.publish();
}

}  // namespace nibble
