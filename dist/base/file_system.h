// New files, directories and hashes of files. Every failure is an Error that names the path and the reason, as in
// dist/base/file_descriptor.h.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace nibble {

struct FileDigest {
  uint64_t bytes = 0;
  std::string hash;  // XXH3-128 as 32 lowercase hexadecimal digits, as xxh128sum prints it
};
// Returns the size and the hash of a regular file.
FileDigest digest_file(const std::filesystem::path& path);

// Creates a file that must not exist yet; returns when its bytes are on the disk. It does not sync the directory.
void write_new_file(const std::filesystem::path& path, std::string_view contents);

// Creates a directory and those of its parents that do not exist.
void make_directories(const std::filesystem::path& path);

// Removes a file or a directory with everything in it. Symbolic links are removed, not followed. Returns false if
// something could not be removed.
bool remove_tree(const std::filesystem::path& path) noexcept;

}  // namespace nibble
