#include "dist/base/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

namespace nibble {
namespace {

// Returns the optimal string alignment distance: the number of insertions, deletions, substitutions and swaps of
// neighbours.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> before(b.size() + 1), above(b.size() + 1), row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) above[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, above[j - 1] + (a[i - 1] == b[j - 1] ? 0U : 1U)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) row[j] = std::min(row[j], before[j - 2] + 1);
    }
    before.swap(above);
    above.swap(row);
  }
  return above[b.size()];
}

}  // namespace

std::string quoted(std::string_view text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') result.push_back('\\');
    if (static_cast<uint8_t>(c) < 0x20 || c == 0x7F) {
      result += fmt::format("\\x{:02x}", static_cast<uint8_t>(c));
    } else {
      result.push_back(c);
    }
  }
  return result + "\"";
}

std::string shown(std::string_view text) {
  constexpr size_t longest = 80;
  if (text.size() <= longest) return quoted(text);
  size_t end = longest;
  while (end > 0 && (static_cast<uint8_t>(text[end]) & 0xC0U) == 0x80U) --end;  // not inside a UTF-8 sequence
  return quoted(text.substr(0, end)) + "...";
}

std::string_view nearest_word(std::string_view word, const std::vector<std::string_view>& candidates) {
  std::string_view best;
  size_t best_distance = std::max<size_t>(1, std::min<size_t>(word.size(), 12) / 3) + 1;
  if (word.size() > 100) return best;
  for (const std::string_view candidate : candidates) {
    const size_t distance = edit_distance(word, candidate);
    if (distance < best_distance) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

std::string did_you_mean(std::string_view meant) {
  return meant.empty() ? std::string() : fmt::format(" (did you mean \"{}\"?)", meant);
}

std::string unknown_word(std::string_view word, const std::vector<std::string_view>& candidates) {
  return shown(word) + did_you_mean(nearest_word(word, candidates));
}

std::string with_thousands(uint64_t value) {
  std::string digits = fmt::format("{}", value);
  for (size_t position = digits.size(); position > 3;) {
    position -= 3;
    digits.insert(position, ",");
  }
  return digits;
}

std::string duration_text(double seconds) {
  const auto whole = static_cast<uint64_t>(std::llround(std::max(0.0, seconds)));
  if (whole < 60) return fmt::format("{}s", whole);
  if (whole < 3600) return fmt::format("{}m{:02}s", whole / 60, whole % 60);
  if (whole < 100 * 3600) return fmt::format("{}h{:02}m", whole / 3600, whole / 60 % 60);
  return fmt::format("{}d{:02}h", whole / 86400, whole / 3600 % 24);
}

std::string counted(const std::vector<std::string>& texts, std::string_view noun) {
  std::map<std::string_view, int> count;
  for (const std::string& text : texts) ++count[text];
  std::string result;
  for (const auto& [text, times] : count) {
    result += fmt::format("{}{} {}: {}", result.empty() ? "" : "; ", times, noun, text);
  }
  return result;
}

}  // namespace nibble
