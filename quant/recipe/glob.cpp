#include "quant/recipe/glob.h"

#include <fnmatch.h>

#include <algorithm>

namespace nibble {
namespace {

// Calls visit(glob) for each alternative until one call returns true; returns whether one did.
template <class Visit>
bool any_alternative(std::string_view globs, Visit visit) {
  while (true) {
    const size_t bar = globs.find('|');
    if (visit(globs.substr(0, bar))) return true;
    if (bar == std::string_view::npos) return false;
    globs.remove_prefix(bar + 1);
  }
}

// Returns the position of the ] that closes the set which begins at `open`; a ] that stands first belongs to the set.
size_t set_end(std::string_view glob, size_t open) {
  size_t first = open + 1;
  if (first < glob.size() && glob[first] == '!') ++first;
  return glob.find(']', first + 1);
}

std::string mistake_in(std::string_view glob) {
  if (glob.empty()) return "has an empty alternative";
  const auto strange = std::find_if(glob.begin(), glob.end(), [](char c) {
    const bool alphanumeric = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    return !alphanumeric && std::string_view("_.-*?[]!").find(c) == std::string_view::npos;
  });
  if (strange != glob.end()) return "holds a character that no parameter's name has, and that is none of * ? [ ] ! |";
  for (size_t i = glob.find('['); i != std::string_view::npos; i = glob.find('[', i)) {
    i = set_end(glob, i);
    if (i == std::string_view::npos) return "has a [ without its ]";
  }
  return {};
}

}  // namespace

bool glob_matches(std::string_view globs, std::string_view name) {
  return any_alternative(globs, [&](std::string_view glob) {
    if (glob.find_first_of("*?[") == std::string_view::npos) return name.find(glob) != std::string_view::npos;
    return fnmatch(std::string(glob).c_str(), std::string(name).c_str(), FNM_NOESCAPE) == 0;
  });
}

std::string glob_mistake(std::string_view globs) {
  std::string mistake;
  any_alternative(globs, [&](std::string_view glob) {
    mistake = mistake_in(glob);
    return !mistake.empty();
  });
  return mistake;
}

}  // namespace nibble
