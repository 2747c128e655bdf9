// Finds the files that a user names as text: files, directories, patterns, and streams.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace nibble {

struct TextInput {
  std::filesystem::path path;
  std::string name;        // what messages call it
  uint64_t bytes = 0;      // of a regular file
  bool is_stream = false;  // standard input, a pipe or a device: it can be read only once
};

// Returns the inputs in the order of the names. A directory stands for all files below it, in byte order of their
// paths; a pattern of a shell for what matches it, in byte order; "-" for standard input. Throws
// ExitCode::missing_input for a name that stands for nothing. Warns of a file that is named twice.
std::vector<TextInput> find_text_inputs(const std::vector<std::string>& names);

}  // namespace nibble
