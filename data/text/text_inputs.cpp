#include "data/text/text_inputs.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <system_error>

#include "data/shards/shard_pattern.h"
#include "dist/base/error.h"
#include "dist/base/log.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

constexpr int deepest_directory = 64;

[[noreturn]] void fail_directory(const fs::path& directory, const std::string& reason) {
  throw Error(ExitCode::missing_input, fmt::format("{}: {}", directory.string(), reason),
              "check the directory and its permissions");
}

void add_files_below(const fs::path& directory, int depth, std::vector<std::string>& files) {
  if (depth > deepest_directory) {
    fail_directory(directory, fmt::format("more than {} directories deep; a link may lead back", deepest_directory));
  }
  std::error_code error;
  fs::directory_iterator entry(directory, error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
    std::error_code unknown;  // a link that leads nowhere is found when it is opened
    const fs::file_type type = entry->status(unknown).type();
    if (type == fs::file_type::directory) {
      add_files_below(entry->path(), depth + 1, files);
    } else {
      files.push_back(entry->path().string());
    }
  }
  if (error) fail_directory(directory, "cannot be listed: " + error.message());
}

TextInput make_input(const std::string& path) {
  TextInput input = {.path = path, .name = path};
  std::error_code error;
  const fs::file_type type = fs::status(path, error).type();
  input.is_stream = type == fs::file_type::fifo || type == fs::file_type::character || type == fs::file_type::socket;
  if (type == fs::file_type::regular) input.bytes = fs::file_size(path, error);
  return input;
}

void add_path(const std::string& path, std::vector<TextInput>& inputs) {
  std::error_code error;
  if (!fs::is_directory(path, error)) {
    inputs.push_back(make_input(path));
    return;
  }
  std::vector<std::string> files;
  const fs::path directory(path);
  add_files_below(directory.has_filename() ? directory : directory.parent_path(), 0, files);
  if (files.empty()) {
    throw Error(ExitCode::missing_input, fmt::format("{}: is a directory without files", path),
                "name a file, or a directory with files below it");
  }
  std::sort(files.begin(), files.end());
  for (const std::string& file : files) inputs.push_back(make_input(file));
}

void add_name(const std::string& name, std::vector<TextInput>& inputs) {
  if (name == "-") {
    inputs.push_back({.path = "/dev/stdin", .name = "standard input", .is_stream = true});
    return;
  }
  std::error_code error;
  if (fs::exists(name, error) || error) return add_path(name, inputs);
  const std::vector<std::string> matches = match_pattern(name);
  if (matches.empty()) {
    throw Error(ExitCode::missing_input, fmt::format("{}: no such file or directory, and nothing matches it", name),
                "check the path; relative paths start at the current directory");
  }
  for (const std::string& match : matches) add_path(match, inputs);
}

}  // namespace

std::vector<TextInput> find_text_inputs(const std::vector<std::string>& names) {
  std::vector<TextInput> inputs;
  for (const std::string& name : names) add_name(name, inputs);
  std::set<std::string> seen;
  for (const TextInput& input : inputs) {
    if (!seen.insert(input.path.lexically_normal().string()).second) {
      log_warning("{} is named twice, and its documents are read twice", input.name);
    }
  }
  return inputs;
}

}  // namespace nibble
