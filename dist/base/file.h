// Files as the data folder reads and writes them: positional exact reads, and writing that becomes visible by a rename.
// Reads are system calls, not a memory map: a file that shrinks or a disk that fails is an Error then, never a signal.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace nibble {

class InputFile {
 public:
  // ExitCode::missing_input if there is no such regular file; ExitCode::io if it cannot be opened.
  explicit InputFile(const std::filesystem::path& path);
  ~InputFile();
  InputFile(InputFile&& other) noexcept;
  InputFile& operator=(InputFile&&) = delete;

  uint64_t size() const { return size_; }  // bytes, when it was opened
  std::string name() const { return path_.string(); }
  // Fills all of `data` from `offset` on. A file that has become shorter is ExitCode::bad_data.
  void read(uint64_t offset, std::span<std::byte> data) const;
  // Number of bytes read, 0 at the end of the file.
  size_t read_some(uint64_t offset, std::span<std::byte> data) const;

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  uint64_t size_ = 0;
};

// The whole file, refused with ExitCode::bad_data when it is longer than `limit` bytes.
std::string read_file(const std::filesystem::path& path, uint64_t limit);

// Writes `.NAME.partial` beside the target; publish() makes it NAME. Unpublished bytes vanish with the object.
class OutputFile {
 public:
  // ExitCode::cannot_create if the temporary file cannot be made.
  explicit OutputFile(const std::filesystem::path& path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write_at(uint64_t offset, std::span<const std::byte> data);
  // Everything written so far is on the disk; no more writes.
  void finish();
  // finish(), then the rename, then the directory is on the disk too.
  void publish();
  std::string name() const { return path_.string(); }

 private:
  std::filesystem::path path_;
  std::filesystem::path partial_;
  int descriptor_ = -1;
  bool published_ = false;
};

void write_file(const std::filesystem::path& path, std::string_view content);

}  // namespace nibble
