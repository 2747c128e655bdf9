#include "dist/base/file_descriptor.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <system_error>

#include "dist/base/error.h"

namespace nibble {
namespace {

std::string message_of(std::string_view action, const std::filesystem::path& path, int error_number) {
  return fmt::format("cannot {} {}: {}", action, path.string(), std::generic_category().message(error_number));
}

bool is_full(int error_number) {
  return error_number == ENOSPC || error_number == EDQUOT || error_number == EFBIG;
}

}  // namespace

FileDescriptor FileDescriptor::try_open(const std::filesystem::path& path, int flags, int mode) noexcept {
  FileDescriptor file;
  do {
    file.descriptor_ = ::open(path.c_str(), flags | O_CLOEXEC, mode);
  } while (file.descriptor_ < 0 && errno == EINTR);
  return file;
}

FileDescriptor::FileDescriptor(const std::filesystem::path& path, int flags, int mode)
    : FileDescriptor(try_open(path, flags, mode)) {
  if (is_open()) return;
  if ((flags & O_CREAT) != 0) fail_output("create", path, errno);
  fail_system_call("open", path, errno);
}

FileDescriptor::~FileDescriptor() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

FileDescriptor& FileDescriptor::operator=(FileDescriptor&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

std::string open_files_remedy(int error_number) {
  if (error_number == ENFILE) return "the whole machine has no file descriptors left: raise fs.file-max (sysctl)";
  if (error_number != EMFILE) return {};
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return "raise the limit on open files (ulimit -n)";
  return fmt::format(
      "this process may open {} files and its hard limit is {}: raise that (ulimit -Hn, limits.conf, or "
      "docker run --ulimit nofile=...), or use fewer, larger shards",
      limit.rlim_cur, limit.rlim_max);
}

void fail_system_call(std::string_view action, const std::filesystem::path& path, int error_number) {
  const std::string what = message_of(action, path, error_number);
  if (is_full(error_number)) {
    throw Error(ExitCode::io, what, "free disk space or raise the quota or file size limit, then resume");
  }
  if (const std::string remedy = open_files_remedy(error_number); !remedy.empty()) {
    throw Error(ExitCode::io, what, remedy);
  }
  switch (error_number) {
    case ENOENT:
    case ENOTDIR: throw Error(ExitCode::missing_input, what, "check the path");
    case EACCES:
    case EPERM:
    case EROFS: throw Error(ExitCode::cannot_create, what, "check permissions, or name another directory");
    default: throw Error(ExitCode::io, what, "check the file system, then resume");
  }
}

void fail_output(std::string_view action, const std::filesystem::path& path, int error_number) {
  if (is_full(error_number) || error_number == EIO || !open_files_remedy(error_number).empty()) {
    fail_system_call(action, path, error_number);
  }
  throw Error(ExitCode::cannot_create, message_of(action, path, error_number),
              "check that the directory exists and may be written, or name another");
}

void write_at(const FileDescriptor& file, const std::filesystem::path& path, uint64_t offset,
              std::span<const std::byte> data) {
  while (!data.empty()) {
    const ssize_t count = ::pwrite(file.get(), data.data(), data.size(), narrow<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) fail_system_call("write", path, count < 0 ? errno : ENOSPC);
    offset += static_cast<uint64_t>(count);
    data = data.subspan(static_cast<size_t>(count));
  }
}

void sync(const FileDescriptor& file, const std::filesystem::path& path) {
  if (::fsync(file.get()) != 0) fail_system_call("sync", path, errno);
}

void sync_path(const std::filesystem::path& path) {
  const FileDescriptor file(path, O_RDONLY);
  // Some file systems cannot sync a directory; they report EINVAL.
  if (::fsync(file.get()) != 0 && errno != EINVAL) fail_system_call("sync", path, errno);
}

}  // namespace nibble
