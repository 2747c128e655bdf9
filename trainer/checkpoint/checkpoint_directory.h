// The names in RUN_DIR/checkpoints. A name like step-00000100 is a complete checkpoint; names that start with ".tmp."
// are unfinished or partly removed and are never read.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace nibble {

constexpr std::string_view temporary_prefix = ".tmp.";

std::string step_directory_name(uint64_t step);

struct StepDirectory {
  uint64_t step = 0;
  std::filesystem::path path;
  bool is_link = false;  // a symbolic link to a directory elsewhere
};
// Returns the checkpoints of a run, newest first. A symbolic link to a directory is one, too; links that lead nowhere
// get a warning. Other names are ignored.
std::vector<StepDirectory> list_checkpoints(const std::filesystem::path& run_directory);

}  // namespace nibble
