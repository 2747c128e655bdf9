#include "trainer/config/recompute_blocks.h"

#include <algorithm>
#include <string>

#include "dist/base/error.h"
#include "dist/base/text.h"
#include "trainer/yaml/yaml_document.h"

namespace nibble {

std::vector<bool> parse_blocks(std::string_view text, size_t blocks) {
  std::vector<bool> flags(blocks, text == "all");
  if (text == "all" || text == "none") return flags;
  const auto number = [&](std::string_view word) -> size_t {
    const bool digits = !word.empty() && word.find_first_not_of("0123456789") == std::string_view::npos;
    const auto parsed = digits ? parse_integer(word) : std::nullopt;
    return parsed && parsed->magnitude < blocks ? static_cast<size_t>(parsed->magnitude) : blocks;
  };
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string_view item = text.substr(begin, end - begin);
    const size_t dash = item.find('-');
    const size_t first = number(item.substr(0, dash));
    const size_t last = dash == std::string_view::npos ? first : number(item.substr(dash + 1));
    if (first >= blocks || last >= blocks || first > last) return {};
    std::fill(flags.begin() + static_cast<std::ptrdiff_t>(first), flags.begin() + static_cast<std::ptrdiff_t>(last) + 1,
              true);
    begin = end + 1;
  }
  return flags;
}

std::vector<bool> recompute_blocks(const RunConfig& config) {
  std::vector<bool> flags = parse_blocks(config.train.recompute, config.model.pattern.size());
  NIBBLE_CHECK(flags.size() == config.model.pattern.size(), "train.recompute is checked when it is read");
  return flags;
}

}  // namespace nibble
