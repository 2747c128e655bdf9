#include "dist/base/file_system.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <system_error>
#include <vector>

#include "dist/base/error.h"
#include "dist/base/file.h"

namespace nibble {

namespace {

constexpr size_t read_block = size_t{4} << 20;

void write_and_sync(const FileDescriptor& file, const std::filesystem::path& path, std::string_view contents) {
  while (!contents.empty()) {
    const ssize_t written = write(file.get(), contents.data(), contents.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail_system_call("write", path, errno);
    contents.remove_prefix(static_cast<size_t>(written));
  }
  if (fsync(file.get()) != 0) fail_system_call("sync", path, errno);
}

}  // namespace

FileDescriptor::FileDescriptor(const std::filesystem::path& path, int flags, int mode)
    : descriptor_(open(path.c_str(), flags | O_CLOEXEC, mode)) {
  if (descriptor_ < 0) fail_system_call((flags & O_ACCMODE) == O_RDONLY ? "open" : "create", path, errno);
}

FileDescriptor::~FileDescriptor() {
  if (descriptor_ >= 0) close(descriptor_);
}

FileDescriptor& FileDescriptor::operator=(FileDescriptor&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

void fail_system_call(std::string_view action, const std::filesystem::path& path, int error_number) {
  const std::string what = fmt::format("cannot {} {}: {}", action, path.string(), std::strerror(error_number));
  switch (error_number) {
    case ENOENT:
    case ENOTDIR: throw Error(ExitCode::missing_input, what, "check the path");
    case EACCES:
    case EPERM:
    case EROFS: throw Error(ExitCode::cannot_create, what, "check permissions, or name another directory");
    case ENOSPC:
    case EDQUOT:
    case EFBIG: throw Error(ExitCode::io, what, "free disk space or raise the quota or file size limit, then resume");
    default: throw Error(ExitCode::io, what, "check the file system, then resume");
  }
}

FileDigest digest_file(const std::filesystem::path& path) {
  const InputFile file(path);
  const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state(XXH3_createState(), &XXH3_freeState);
  NIBBLE_CHECK(state != nullptr && XXH3_128bits_reset(state.get()) == XXH_OK, "hash state");
  std::vector<std::byte> buffer(std::clamp<uint64_t>(file.size(), 1, read_block));
  FileDigest digest;
  while (const size_t got = file.read_some(digest.bytes, buffer)) {
    XXH3_128bits_update(state.get(), buffer.data(), got);
    digest.bytes += got;
  }
  const XXH128_hash_t hash = XXH3_128bits_digest(state.get());
  digest.hash = fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
  return digest;
}

void write_new_file(const std::filesystem::path& path, std::string_view contents) {
  const FileDescriptor file(path, O_WRONLY | O_CREAT | O_EXCL);
  write_and_sync(file, path, contents);
}

void write_file_durably(const std::filesystem::path& path, std::string_view contents) {
  const std::filesystem::path temporary = path.string() + fmt::format(".tmp.{}", getpid());
  try {
    const FileDescriptor file(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW);
    write_and_sync(file, temporary, contents);
    if (std::rename(temporary.c_str(), path.c_str()) != 0) fail_system_call("replace", path, errno);
  } catch (...) {
    unlink(temporary.c_str());
    throw;
  }
  sync_path(path.has_parent_path() ? path.parent_path() : ".");
}

void sync_path(const std::filesystem::path& path) {
  const FileDescriptor file(path, O_RDONLY);
  // Some file systems cannot sync a directory; they report EINVAL.
  if (fsync(file.get()) != 0 && errno != EINVAL) fail_system_call("sync", path, errno);
}

void make_directories(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error || !std::filesystem::is_directory(path, error)) {
    const std::string reason = error ? error.message() : "something else has this name";
    throw Error(ExitCode::cannot_create, fmt::format("cannot create the directory {}: {}", path.string(), reason),
                "check permissions, or name another directory");
  }
}

bool remove_tree(const std::filesystem::path& path) noexcept {
  std::error_code error;
  std::filesystem::remove_all(path, error);
  return !error;
}

}  // namespace nibble
