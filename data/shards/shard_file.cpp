#include "data/shards/shard_file.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <list>
#include <mutex>

#include "dist/base/error.h"
#include "dist/base/file.h"

namespace nibble {

// The place of a file among those that are open.
struct ShardFile::Handle {
  std::shared_ptr<const InputFile> file;  // null while it is closed
  std::list<Handle*>::iterator place;     // in the list of open files
};

// The open files of the process, the one that was used last in front.
class OpenShardFiles {
 public:
  struct Opened {
    std::shared_ptr<const InputFile> file;  // stays open until the caller has read, even if others close it
    bool again;                             // it was closed before
  };
  Opened get(const ShardFile& shard) {
    const std::lock_guard lock(mutex_);
    ShardFile::Handle& handle = *shard.handle_;
    if (handle.file != nullptr) {
      open_.splice(open_.begin(), open_, handle.place);
      return {handle.file, false};
    }
    while (!open_.empty() && open_.size() >= most()) close(*open_.back());
    handle.file = std::make_shared<const InputFile>(shard.path_);
    open_.push_front(&handle);
    handle.place = open_.begin();
    return {handle.file, true};
  }

  void remove(ShardFile::Handle& handle) {
    const std::lock_guard lock(mutex_);
    if (handle.file != nullptr) close(handle);
  }

 private:
  static uint64_t most() {
    constexpr uint64_t fewest = 4;
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return fewest;
    return std::max<uint64_t>(fewest, limit.rlim_cur / 2);
  }

  void close(ShardFile::Handle& handle) {
    open_.erase(handle.place);
    handle.file = nullptr;
  }

  std::mutex mutex_;
  std::list<ShardFile::Handle*> open_;
};

namespace {

OpenShardFiles& open_files() {
  static OpenShardFiles files;
  return files;
}

std::filesystem::file_time_type time_of_change(const std::filesystem::path& path) {
  std::error_code ignored;
  return std::filesystem::last_write_time(path, ignored);
}

}  // namespace

ShardFile::ShardFile(const std::filesystem::path& path) : path_(path), handle_(std::make_unique<Handle>()) {
  size_ = open_files().get(*this).file->size();
  changed_ = time_of_change(path_);
}

ShardFile::~ShardFile() {
  open_files().remove(*handle_);
}

void ShardFile::read(uint64_t offset, std::span<std::byte> data) const {
  const auto [file, again] = open_files().get(*this);
  if (again && (file->size() != size_ || time_of_change(path_) != changed_)) {
    throw Error(ExitCode::bad_data, fmt::format("{}: the file was changed or replaced while it is in use", name()),
                "restore the shard that was there; shards must not change while a run reads them");
  }
  file->read(offset, data);
}

}  // namespace nibble
