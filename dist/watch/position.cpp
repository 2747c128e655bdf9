#include "dist/watch/position.h"

#include <fmt/format.h>

#include <algorithm>

namespace nibble {

ShortText::ShortText(std::string_view text) {
  std::copy_n(text.begin(), std::min(text.size(), characters.size() - 1), characters.begin());
}

std::string operation_of(const Position& position) {
  if (!position.collective.view().empty()) {
    return fmt::format("{} number {}", position.collective.view(), position.collective_number);
  }
  if (!position.operation.view().empty()) return std::string(position.operation.view());
  return std::string(name_of(position.phase));
}

}  // namespace nibble
