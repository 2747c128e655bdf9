// Names of shards as users write them: glob patterns of a shell.
//
// In a pattern `*`, `?` and `[...]` stand for parts of a name, and a backslash takes their meaning from them. A
// directory or file that exists under the very name that is written is taken as it is, even if the name has such
// characters:
// `/data/exp[1]/train-*.bin` are the shards in the directory `exp[1]`, where there is one. Both files of a pair of
// Megatron's, and their prefix, stand for one shard, whose name is that of the .bin.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace nibble {

// Returns what matches one pattern, sorted by its bytes; nothing if nothing does. Throws ExitCode::io if a directory
// cannot be read.
std::vector<std::string> match_pattern(const std::string& pattern);

// Returns the files that match the patterns, in the order of the patterns; the matches of one pattern are sorted by
// their bytes. Throws ExitCode::missing_input for a pattern without matches, and ExitCode::bad_config for a file that
// is named twice.
std::vector<std::string> expand_patterns(const std::vector<std::string>& patterns);

// Returns the pattern that matches exactly this path.
std::string escape_pattern(std::string_view path);

// Returns the directory of the first file that matches; without a match, the directory that the pattern names.
std::filesystem::path directory_of_pattern(const std::string& pattern);

}  // namespace nibble
