#include "trainer/checkpoint/unfinished_directory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <system_error>
#include <utility>

#include "dist/base/error.h"
#include "dist/base/file_descriptor.h"
#include "dist/base/file_system.h"
#include "trainer/checkpoint/checkpoint_directory.h"

namespace nibble {

namespace fs = std::filesystem;

namespace {

fs::path without_slash(const fs::path& path) {
  const fs::path normal = fs::absolute(path).lexically_normal();
  return normal.has_filename() ? normal : normal.parent_path();
}

}  // namespace

UnfinishedDirectory::UnfinishedDirectory(const fs::path& target, std::string remedy)
    : target_(without_slash(target)), remedy_(std::move(remedy)) {
  std::error_code error;
  if (fs::exists(fs::symlink_status(target_, error))) refuse_existing();
  make_directories(target_.parent_path());
  const fs::path hidden =
      target_.parent_path() / fmt::format("{}{}.{}", temporary_prefix, target_.filename().string(), getpid());
  if (!fs::create_directory(hidden, error)) fail_output("create", hidden, error ? error.value() : EEXIST);
  path_ = hidden;
}

UnfinishedDirectory::~UnfinishedDirectory() {
  if (!path_.empty()) remove_tree(path_);
}

void UnfinishedDirectory::publish() {
  sync_path(path_);
  int code = renameat2(AT_FDCWD, path_.c_str(), AT_FDCWD, target_.c_str(), RENAME_NOREPLACE);
  if (code != 0 && errno == EINVAL && !fs::exists(fs::symlink_status(target_))) {
    code = std::rename(path_.c_str(), target_.c_str());  // the file system knows no such flag
  }
  if (code != 0 && (errno == EEXIST || errno == ENOTEMPTY || errno == EINVAL)) refuse_existing();
  if (code != 0) fail_output("create", target_, errno);
  path_.clear();
  sync_path(target_.parent_path());
}

void UnfinishedDirectory::refuse_existing() const {
  throw Error(ExitCode::cannot_create, fmt::format("{} exists already", target_.string()), remedy_);
}

}  // namespace nibble
