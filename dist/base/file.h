// Input files with exact reads at a given offset, and output files that become visible by a rename. Reads are system
// calls, not a memory map, so that a file that shrinks or a disk that fails is an Error and never a signal.
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
  // Throws ExitCode::missing_input if there is no such regular file, and ExitCode::io if it cannot be opened.
  explicit InputFile(const std::filesystem::path& path);
  ~InputFile();
  InputFile(InputFile&& other) noexcept;
  InputFile& operator=(InputFile&&) = delete;

  uint64_t size() const { return size_; }  // bytes at the time of opening
  std::string name() const { return path_.string(); }
  // Fills all of `data` from `offset` on. Throws ExitCode::bad_data if the file has become shorter.
  void read(uint64_t offset, std::span<std::byte> data) const;
  // Reads at most data.size() bytes from `offset` on. Returns the number of bytes read, 0 at the end of the file.
  size_t read_some(uint64_t offset, std::span<std::byte> data) const;

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  uint64_t size_ = 0;
};

// Returns the whole file. Throws ExitCode::bad_data if the file is longer than `limit` bytes.
std::string read_file(const std::filesystem::path& path, uint64_t limit);

// Writes to `.NAME.partial` beside the target; publish() renames it to NAME. The destructor removes a file that was not
// published.
class OutputFile {
 public:
  // Throws ExitCode::cannot_create if the temporary file cannot be made.
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

 private:
  std::filesystem::path path_;
  std::filesystem::path partial_;
  int descriptor_ = -1;
  bool published_ = false;
};

void write_file(const std::filesystem::path& path, std::string_view content);

}  // namespace nibble
