#include "dist/base/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "dist/base/error.h"

namespace nibble {
namespace {

std::string system_message(int error) {
  return std::generic_category().message(error);
}

[[noreturn]] void fail_directory(const std::string& name) {
  throw Error(ExitCode::missing_input, fmt::format("{}: is a directory", name), "name a file in it");
}

// Opens a file for reading, with the messages for inputs.
FileDescriptor open_input(const std::filesystem::path& path, int flags) {
  FileDescriptor file = FileDescriptor::try_open(path, O_RDONLY | flags);
  if (file.is_open()) return file;
  const int error = errno;
  const std::string name = path.string();
  if (error == ENOENT || error == ENOTDIR) {
    throw Error(ExitCode::missing_input, fmt::format("{}: cannot open: no such file", name),
                "check the path; relative paths start at the current directory");
  }
  const std::string remedy = open_files_remedy(error);
  throw Error(ExitCode::io, fmt::format("{}: cannot open: {}", name, system_message(error)),
              remedy.empty() ? "check the permissions of the file" : remedy);
}

}  // namespace

// Without O_NONBLOCK, opening a named pipe would block for ever.
InputFile::InputFile(const std::filesystem::path& path) : path_(path), file_(open_input(path, O_NONBLOCK)) {
  struct stat status = {};
  if (::fstat(file_.get(), &status) != 0) fail_system_call("examine", path_, errno);
  if (S_ISDIR(status.st_mode)) fail_directory(name());
  if (!S_ISREG(status.st_mode)) {
    throw Error(ExitCode::missing_input, fmt::format("{}: not a regular file", name()), "give a regular file");
  }
  size_ = static_cast<uint64_t>(status.st_size);
}

size_t InputFile::read_some(uint64_t offset, std::span<std::byte> data) const {
  ssize_t count = 0;
  do {
    count = ::pread(file_.get(), data.data(), data.size(), narrow<off_t>(offset));
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

std::string read_stream(const std::filesystem::path& path, size_t limit) {
  const FileDescriptor file = open_input(path, 0);
  std::string content(limit, '\0');
  size_t size = 0;
  while (size < limit) {
    const ssize_t count = ::read(file.get(), content.data() + size, limit - size);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EISDIR) fail_directory(path.string());
    if (count < 0) fail_system_call("read", path, errno);
    if (count == 0) break;
    size += static_cast<size_t>(count);
  }
  content.resize(size);
  return content;
}

std::filesystem::path OutputFile::partial_path(const std::filesystem::path& path) {
  return path.parent_path() / fmt::format(".{}.partial", path.filename().string());
}

OutputFile::OutputFile(const std::filesystem::path& path)
    : path_(path),
      partial_(partial_path(path)),
      file_(FileDescriptor::try_open(partial_, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW, 0666)) {
  if (!file_.is_open()) fail_output("create", path_, errno);
}

OutputFile::~OutputFile() {
  if (!published_) ::unlink(partial_.c_str());
}

void OutputFile::write_at(uint64_t offset, std::span<const std::byte> data) {
  NIBBLE_CHECK(file_.is_open(), "write after finish");
  nibble::write_at(file_, path_, offset, data);
}

void OutputFile::finish() {
  if (!file_.is_open()) return;
  sync(file_, path_);
  if (::close(file_.release()) != 0) fail_system_call("write", path_, errno);
}

void OutputFile::publish() {
  finish();
  if (::rename(partial_.c_str(), path_.c_str()) != 0) fail_output("replace", path_, errno);
  published_ = true;
  sync_path(path_.has_parent_path() ? path_.parent_path() : ".");
}

void write_file(const std::filesystem::path& path, std::string_view content) {
  OutputFile file(path);
  file.write_at(0, std::as_bytes(std::span(content)));
  file.publish();
}

}  // namespace nibble
