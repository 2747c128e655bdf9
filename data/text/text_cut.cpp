#include "data/text/text_cut.h"

#include <algorithm>

#include "dist/base/utf8.h"

namespace nibble {
namespace {

size_t cut_position(std::string_view text, size_t limit) {
  if (text.size() <= limit) return text.size();
  const std::string_view head = text.substr(0, limit);
  if (const size_t feed = head.rfind('\n'); feed != std::string_view::npos) return feed + 1;
  for (size_t space = head.rfind(' '); space != std::string_view::npos && space > 0;
       space = head.rfind(' ', space - 1)) {
    if (head[space - 1] != ' ') return space;
  }
  return code_point_boundary(text, limit);
}

}  // namespace

std::vector<std::string_view> cut_text(std::string_view text, size_t limit) {
  std::vector<std::string_view> pieces;
  while (!text.empty()) {
    const size_t count = cut_position(text, limit);
    pieces.push_back(text.substr(0, count));
    text.remove_prefix(count);
  }
  return pieces;
}

size_t cut_near(std::string_view text, size_t position, size_t distance) {
  const auto distance_of = [&](size_t cut) { return cut > position ? cut - position : position - cut; };
  const size_t begin = position - std::min(position, distance);
  const size_t end = std::min(text.size(), position + distance);
  for (const std::string_view separator : {"\n\n", "\n\r\n", "\n", "\u3002", ". ", " "}) {
    size_t best = 0;
    for (size_t at = text.find(separator, begin); at != std::string_view::npos; at = text.find(separator, at + 1)) {
      const size_t cut = at + separator.size();
      if (cut > end || cut == text.size()) break;
      if (best == 0 || distance_of(cut) < distance_of(best)) best = cut;
    }
    if (best != 0) return best;
  }
  return code_point_boundary(text, position);
}

}  // namespace nibble
