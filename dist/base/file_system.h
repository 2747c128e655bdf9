// Files that must survive a crash, and hashes of files (reading is in dist/base/file.h). Every failure is an Error that
// names the path and the reason: ExitCode::missing_input (no such file), cannot_create (no permission, read-only), io
// (disk full and everything else).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>

namespace nibble {

// Owns a file descriptor and closes it.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  // Opens the file with open(2) and O_CLOEXEC.
  FileDescriptor(const std::filesystem::path& path, int flags, int mode = 0644);
  ~FileDescriptor();
  FileDescriptor(FileDescriptor&& other) noexcept : descriptor_(other.release()) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept;
  int get() const { return descriptor_; }
  int release() { return std::exchange(descriptor_, -1); }  // the caller closes it

 private:
  int descriptor_ = -1;
};

// Throws the Error for a failed system call: "cannot ACTION PATH: reason".
[[noreturn]] void fail_system_call(std::string_view action, const std::filesystem::path& path, int error_number);

struct FileDigest {
  uint64_t bytes = 0;
  std::string hash;  // XXH3-128 as 32 lowercase hexadecimal digits, as xxh128sum prints it
};
// Returns the size and the hash of a regular file.
FileDigest digest_file(const std::filesystem::path& path);

// Creates a file that must not exist yet; returns when its bytes are on the disk. It does not sync the directory.
void write_new_file(const std::filesystem::path& path, std::string_view contents);

// Replaces a file so that after a crash it has either the old or the new contents: it writes a temporary file, syncs
// it, renames it and syncs the directory.
void write_file_durably(const std::filesystem::path& path, std::string_view contents);

// Calls fsync on a file, or on a directory, whose entries are then on the disk.
void sync_path(const std::filesystem::path& path);

// Creates a directory and those of its parents that do not exist.
void make_directories(const std::filesystem::path& path);

// Removes a file or a directory with everything in it. Symbolic links are removed, not followed. Returns false if
// something could not be removed.
bool remove_tree(const std::filesystem::path& path) noexcept;

}  // namespace nibble
