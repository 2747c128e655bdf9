#include "quant/recipe/glob.h"

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

bool set_holds(std::string_view set, char c) {
  const bool negated = set.starts_with('!');
  if (negated) set.remove_prefix(1);
  bool found = false;
  for (size_t i = 0; i < set.size(); ++i) {
    const bool is_range = i + 2 < set.size() && set[i + 1] == '-';
    found = found || (is_range ? set[i] <= c && c <= set[i + 2] : set[i] == c);
    if (is_range) i += 2;
  }
  return found != negated;
}

// Matches one character of the name; `next` becomes the position behind the pattern's element.
bool element_matches(std::string_view glob, size_t at, char c, size_t& next) {
  if (glob[at] == '[') {
    const size_t end = set_end(glob, at);
    if (end == std::string_view::npos) return false;
    next = end + 1;
    return set_holds(glob.substr(at + 1, end - at - 1), c);
  }
  next = at + 1;
  return glob[at] == '?' || glob[at] == c;
}

bool matches_whole(std::string_view glob, std::string_view name) {
  size_t at = 0;
  size_t read = 0;
  size_t star = std::string_view::npos;  // the last * seen: it takes one more character whenever what follows fails
  size_t star_read = 0;
  while (read < name.size()) {
    size_t next = 0;
    if (at < glob.size() && glob[at] == '*') {
      star = at++;
      star_read = read;
    } else if (at < glob.size() && element_matches(glob, at, name[read], next)) {
      at = next;
      ++read;
    } else if (star != std::string_view::npos) {
      at = star + 1;
      read = ++star_read;
    } else {
      return false;
    }
  }
  return glob.find_first_not_of('*', at) == std::string_view::npos;
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
    return matches_whole(glob, name);
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
