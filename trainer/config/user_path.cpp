#include "trainer/config/user_path.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "data/shards/shard_pattern.h"
#include "dist/base/error.h"
#include "dist/base/text.h"

namespace nibble {
namespace {

constexpr std::string_view letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_";
constexpr std::string_view letters_and_digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789";

[[noreturn]] void refuse(const std::string& what, const std::string& remedy) {
  throw Error(ExitCode::usage, what, remedy);
}

std::string value_of(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  if (value != nullptr && *value != '\0') return value;
  refuse(fmt::format("the variable {} is {}", name, value == nullptr ? "not set" : "empty"),
         fmt::format("set and export {} (mpirun passes it to other machines with -x {}), or write the path itself; $$ "
                     "stands for a dollar sign",
                     name, name));
}

// Takes `$NAME`, `${NAME}` or `$$` from the front of the text and returns the name, or "$".
std::string take_variable(std::string_view& text) {
  const std::string_view whole = text;
  text.remove_prefix(1);
  if (text.starts_with('$')) {
    text.remove_prefix(1);
    return "$";
  }
  const bool braces = text.starts_with('{');
  if (braces) text.remove_prefix(1);
  const bool begins = !text.empty() && letters.find(text.front()) != std::string_view::npos;
  const size_t length = begins ? std::min(text.find_first_not_of(letters_and_digits), text.size()) : 0;
  std::string name(text.substr(0, length));
  text.remove_prefix(length);
  if (braces && !name.empty() && text.starts_with('}')) {
    text.remove_prefix(1);
  } else if (braces || name.empty()) {
    refuse(fmt::format("{} is no variable", shown(whole)), "write $NAME, ${NAME}, or $$ for a dollar sign");
  }
  return name;
}

bool exists(const std::string& path) {
  std::error_code error;
  return std::filesystem::exists(std::filesystem::symlink_status(path, error));
}

// Replaces what stands for other text, name by name. `literal` is the path so far; `result` is the same, as a pattern
// where a pattern is wanted.
class PathExpansion {
 public:
  explicit PathExpansion(bool pattern) : pattern_(pattern) {}

  std::string expand(std::string_view written) {
    take_home(written);
    bool at_beginning = literal_.empty();
    while (!written.empty()) {
      const std::string_view name = written.substr(0, std::min(written.find('/'), written.size() - 1) + 1);
      const bool begins_with_variable = at_beginning && name.starts_with('$');
      if (!begins_with_variable && name.find('$') != std::string_view::npos && exists(literal_ + std::string(name))) {
        add_written(name);
      } else {
        add_name(name);
      }
      written.remove_prefix(name.size());
      at_beginning = false;
    }
    return result_;
  }

 private:
  void take_home(std::string_view& written) {
    if (!written.starts_with('~')) return;
    const size_t length = std::min(written.find('/'), written.size());
    if (length != 1) {
      const std::string_view name = written.substr(0, length);
      refuse(fmt::format("{}: home directories of other users are not looked up", shown(name)),
             fmt::format("write the directory itself, or ./{} for a file of this name", name));
    }
    add_value(value_of("HOME"));
    written.remove_prefix(1);
  }

  void add_name(std::string_view name) {
    while (!name.empty()) {
      if (name.front() != '$') {
        const size_t length = std::min(name.find('$'), name.size());
        add_written(name.substr(0, length));
        name.remove_prefix(length);
        continue;
      }
      const std::string variable = take_variable(name);
      variable == "$" ? add_written("$") : add_value(value_of(variable));
    }
  }

  void add_written(std::string_view text) {
    literal_ += text;
    result_ += text;
  }
  void add_value(const std::string& value) {
    literal_ += value;
    result_ += pattern_ ? escape_pattern(value) : value;
  }

  bool pattern_;
  std::string literal_;
  std::string result_;
};

}  // namespace

std::string expand_path(std::string_view written) {
  return PathExpansion(false).expand(written);
}

std::string expand_path_in_pattern(std::string_view written) {
  return PathExpansion(true).expand(written);
}

std::string written_path(std::string_view path) {
  std::string text;
  for (const char character : path) {
    if (character == '$') text.push_back('$');
    text.push_back(character);
  }
  return text;
}

}  // namespace nibble
