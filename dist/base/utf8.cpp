#include "dist/base/utf8.h"

#include <cstring>

namespace nibble {
namespace {

bool is_continuation(unsigned char byte) {
  return (byte & 0xC0U) == 0x80U;
}

// Returns the length of the valid sequence at the start of `text`, 0 if there is none. `text` is not empty.
size_t sequence_length(std::string_view text) {
  const auto at = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = at(0);
  if (lead < 0x80) return 1;
  if (lead < 0xC2 || lead > 0xF4) return 0;
  const size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  if (text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if (!is_continuation(at(i))) return 0;
  }
  // The second byte rules out overlong forms (E0, F0), surrogates (ED) and values above U+10FFFF (F4).
  if (lead == 0xE0 && at(1) < 0xA0) return 0;
  if (lead == 0xED && at(1) > 0x9F) return 0;
  if (lead == 0xF0 && at(1) < 0x90) return 0;
  if (lead == 0xF4 && at(1) > 0x8F) return 0;
  return length;
}

}  // namespace

std::optional<size_t> find_invalid_utf8(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    uint64_t word = 0;
    if (text.size() - i >= sizeof(word)) {
      std::memcpy(&word, text.data() + i, sizeof(word));
      if ((word & 0x8080808080808080ULL) == 0) {
        i += sizeof(word);
        continue;
      }
    }
    const size_t length = sequence_length(text.substr(i));
    if (length == 0) return i;
    i += length;
  }
  return std::nullopt;
}

uint64_t replace_invalid_utf8(std::string& text) {
  std::string result;
  uint64_t replaced = 0;
  std::string_view rest = text;
  for (auto bad = find_invalid_utf8(rest); bad; bad = find_invalid_utf8(rest)) {
    result.append(rest.substr(0, *bad)).append("\xEF\xBF\xBD");
    rest.remove_prefix(*bad + 1);
    ++replaced;
  }
  if (replaced == 0) return 0;
  result.append(rest);
  text = std::move(result);
  return replaced;
}

size_t code_point_boundary(std::string_view text, size_t limit) {
  if (limit >= text.size()) return text.size();
  size_t cut = limit;
  while (cut > 0 && is_continuation(static_cast<unsigned char>(text[cut]))) --cut;
  if (cut > 0) return cut;
  for (cut = 1; cut < text.size() && is_continuation(static_cast<unsigned char>(text[cut]));) ++cut;
  return cut;
}

}  // namespace nibble
