// System calls on files. Every failure is an Error that names the path and the reason.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace nibble {

// Owns a file descriptor and closes it.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  // Opens the file with open(2) and O_CLOEXEC. Throws the Error of fail_output() where the flags have O_CREAT, that of
  // fail_system_call() elsewhere.
  FileDescriptor(const std::filesystem::path& path, int flags, int mode = 0644);
  // Does the same without an error: the result may not be open, and errno says why.
  static FileDescriptor try_open(const std::filesystem::path& path, int flags, int mode = 0644) noexcept;
  ~FileDescriptor();
  FileDescriptor(FileDescriptor&& other) noexcept : descriptor_(other.release()) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept;
  bool is_open() const { return descriptor_ >= 0; }
  int get() const { return descriptor_; }
  int release() { return std::exchange(descriptor_, -1); }  // the caller closes it

 private:
  int descriptor_ = -1;
};

// Returns the remedy for a process that may open no more files (EMFILE, ENFILE), with the limit that holds now; it is
// empty for other errors.
std::string open_files_remedy(int error_number);

// Throws the Error for a failed system call, "cannot ACTION PATH: reason": ExitCode::missing_input if there is no such
// file, cannot_create without the permission, io for a full disk and everything else.
[[noreturn]] void fail_system_call(std::string_view action, const std::filesystem::path& path, int error_number);
// The same for an output whose name cannot be made: ExitCode::cannot_create unless the disk is full or broken.
[[noreturn]] void fail_output(std::string_view action, const std::filesystem::path& path, int error_number);

// Writes all of `data` from `offset` on. `path` is for messages, here and below.
void write_at(const FileDescriptor& file, const std::filesystem::path& path, uint64_t offset,
              std::span<const std::byte> data);
// Returns when what was written is on the disk.
void sync(const FileDescriptor& file, const std::filesystem::path& path);
// Calls fsync on a file, or on a directory, whose entries are then on the disk.
void sync_path(const std::filesystem::path& path);

}  // namespace nibble
