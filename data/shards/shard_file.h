// The file of a shard. A run may have thousands of shards and a machine may allow few open files, so only some are
// open at a time: at most half as many as the process may open. The file that was used longest ago is closed first, and
// opened again when it is read from. Several threads may read from different files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

namespace nibble {

class ShardFile {
 public:
  // Throws as InputFile does (dist/base/file.h).
  explicit ShardFile(const std::filesystem::path& path);
  ~ShardFile();
  ShardFile(const ShardFile&) = delete;
  ShardFile& operator=(const ShardFile&) = delete;

  uint64_t size() const { return size_; }  // bytes at the time of opening
  std::string name() const { return path_.string(); }
  // Fills all of `data` from `offset` on. Throws as InputFile::read() does, and ExitCode::bad_data for a file that was
  // closed in between and is now another one: its size or the time of its last change differs.
  void read(uint64_t offset, std::span<std::byte> data) const;

 private:
  friend class OpenShardFiles;
  struct Handle;

  std::filesystem::path path_;
  uint64_t size_ = 0;
  std::filesystem::file_time_type changed_;
  std::unique_ptr<Handle> handle_;
};

}  // namespace nibble
