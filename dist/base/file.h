// Input files with exact reads at a given offset, and output files that become visible by a rename, so that after a
// crash there is either the old file or the new one. Reads are system
// calls, not a memory map, so that a file that shrinks or a disk that fails is an Error and never a signal.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "dist/base/file_descriptor.h"

namespace nibble {

class InputFile {
 public:
  // Throws ExitCode::missing_input if there is no such regular file, and ExitCode::io if it cannot be opened.
  explicit InputFile(const std::filesystem::path& path);

  uint64_t size() const { return size_; }  // bytes at the time of opening
  std::string name() const { return path_.string(); }
  // Fills all of `data` from `offset` on. Throws ExitCode::bad_data if the file has become shorter.
  void read(uint64_t offset, std::span<std::byte> data) const;
  // Reads at most data.size() bytes from `offset` on. Returns the number of bytes read, 0 at the end of the file.
  size_t read_some(uint64_t offset, std::span<std::byte> data) const;

 private:
  std::filesystem::path path_;
  FileDescriptor file_;
  uint64_t size_ = 0;
};

// Returns the whole file. Throws ExitCode::bad_data if the file is longer than `limit` bytes.
std::string read_file(const std::filesystem::path& path, uint64_t limit);
// Returns at most `limit` bytes of a file or of a pipe. Throws what InputFile throws.
std::string read_stream(const std::filesystem::path& path, size_t limit);

// Writes to `.NAME.partial` beside the target; publish() renames it to NAME. The destructor removes a file that was not
// published.
class OutputFile {
 public:
  // Throws ExitCode::cannot_create if the temporary file cannot be made, and ExitCode::io if the disk is full.
  explicit OutputFile(const std::filesystem::path& path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write_at(uint64_t offset, std::span<const std::byte> data);
  // Returns when everything written so far is on the disk. No write may follow.
  void finish();
  // Calls finish(), renames the file, and returns when the directory entry is on the disk too.
  void publish();
  std::string name() const { return path_.string(); }
  // Returns the temporary name of a file that is to get this name.
  static std::filesystem::path partial_path(const std::filesystem::path& path);

 private:
  std::filesystem::path path_;
  std::filesystem::path partial_;
  FileDescriptor file_;
  bool published_ = false;
};

// Writes a whole file as an OutputFile does.
void write_file(const std::filesystem::path& path, std::string_view content);

}  // namespace nibble
