#include "data/shards/shard_pattern.h"

#include <fmt/format.h>
#include <glob.h>

#include <algorithm>
#include <cerrno>
#include <set>

#include "data/shards/megatron_shard.h"
#include "dist/base/error.h"

namespace nibble {
namespace {

constexpr std::string_view special_characters = "*?[\\";

bool has_wildcards(std::string_view pattern) {
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] == '\\') {
      ++i;
    } else if (special_characters.find(pattern[i]) != std::string_view::npos) {
      return true;
    }
  }
  return false;
}

std::string without_escapes(std::string_view pattern) {
  std::string text;
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] == '\\' && i + 1 < pattern.size()) ++i;
    text.push_back(pattern[i]);
  }
  return text;
}

// A file that cannot be examined counts as one that is there: opening it then reports the reason.
bool exists(const std::string& path) {
  std::error_code error;
  return std::filesystem::status(path, error).type() != std::filesystem::file_type::not_found;
}

// A pattern that begins with names of files and directories as they are, as far as there are such.
struct SplitPattern {
  std::string literal;  // "/data/exp[1]/"
  std::string rest;     // "train-*.bin"
};

SplitPattern split(std::string_view pattern) {
  SplitPattern result;
  while (!pattern.empty()) {
    const std::string_view part = pattern.substr(0, std::min(pattern.find('/'), pattern.size() - 1) + 1);
    const std::string_view name = part.ends_with('/') ? part.substr(0, part.size() - 1) : part;
    if (!has_wildcards(name)) {
      result.literal += without_escapes(part);
    } else if (exists(result.literal + std::string(name))) {
      result.literal += part;
    } else {
      break;
    }
    pattern.remove_prefix(part.size());
  }
  result.rest = pattern;
  return result;
}

std::string shown(const SplitPattern& parts) {
  return parts.literal + parts.rest;
}

std::vector<std::string> match(const SplitPattern& parts) {
  std::vector<std::string> paths;
  if (parts.rest.empty()) {
    if (exists(parts.literal)) paths.push_back(parts.literal);
  } else {
    glob_t matches = {};
    // A directory that does not exist has no matches; one that cannot be read is an error.
    const auto stop_at_error = [](const char* /*path*/, int error) {
      return error == ENOENT || error == ENOTDIR ? 0 : 1;
    };
    const std::string whole = escape_pattern(parts.literal) + parts.rest;
    const int status = ::glob(whole.c_str(), GLOB_NOSORT, stop_at_error, &matches);
    paths.assign(matches.gl_pathv, matches.gl_pathv + matches.gl_pathc);
    ::globfree(&matches);
    if (status == GLOB_NOSPACE) {
      throw Error(ExitCode::out_of_memory, fmt::format("{}: too many matches", shown(parts)));
    }
    if (status == GLOB_ABORTED) {
      throw Error(ExitCode::io, fmt::format("{}: a directory cannot be read", shown(parts)), "check its permissions");
    }
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

// A pattern may match the prefixes of Megatron's pairs, which are names of no files.
std::vector<std::string> expand_pattern(const std::string& pattern) {
  const SplitPattern parts = split(pattern);
  std::vector<std::string> paths = match(parts);
  if (paths.empty()) paths = match(split(pattern + ".idx"));
  if (paths.empty()) {
    throw Error(ExitCode::missing_input, fmt::format("{}: no such shard", shown(parts)),
                "check the path, or make the shards with nibble tokenize");
  }
  return paths;
}

// Both files of a pair of Megatron's are one shard, which the name of the .bin stands for.
std::vector<std::string> pairs_once(std::vector<std::string> paths) {
  for (std::string& path : paths) {
    const auto pair = megatron_pair(path);
    if (pair && exists(pair->string())) path = pair->string();
  }
  std::sort(paths.begin(), paths.end());
  paths.erase(std::unique(paths.begin(), paths.end()), paths.end());
  return paths;
}

}  // namespace

std::vector<std::string> match_pattern(const std::string& pattern) {
  return match(split(pattern));
}

std::vector<std::string> expand_patterns(const std::vector<std::string>& patterns) {
  if (patterns.empty()) {
    throw Error(ExitCode::missing_input, "no shards are named", "name at least one shard or pattern");
  }
  std::vector<std::string> paths;
  std::set<std::string> seen;
  for (const std::string& pattern : patterns) {
    for (std::string& path : pairs_once(expand_pattern(pattern))) {
      if (!seen.insert(std::filesystem::path(path).lexically_normal().string()).second) {
        throw Error(ExitCode::bad_config, fmt::format("{}: named twice in the list of shards", path),
                    "name every shard once");
      }
      paths.push_back(std::move(path));
    }
  }
  return paths;
}

std::string escape_pattern(std::string_view path) {
  std::string pattern;
  for (const char character : path) {
    if (special_characters.find(character) != std::string_view::npos) pattern.push_back('\\');
    pattern.push_back(character);
  }
  return pattern;
}

std::filesystem::path directory_of_pattern(const std::string& pattern) {
  try {
    return std::filesystem::path(expand_pattern(pattern).front()).parent_path();
  } catch (const Error&) {
    const SplitPattern parts = split(pattern);
    return std::filesystem::path(parts.literal + parts.rest).parent_path();
  }
}

}  // namespace nibble
