// UTF-8 as Unicode defines it: no overlong forms, no surrogates, nothing above U+10FFFF.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace nibble {

// Returns the offset of the first byte that does not start a valid sequence.
std::optional<size_t> find_invalid_utf8(std::string_view text);
inline bool is_utf8(std::string_view text) {
  return !find_invalid_utf8(text);
}

// Replaces every byte that is not part of a valid sequence by U+FFFD. Returns the number of replaced bytes.
uint64_t replace_invalid_utf8(std::string& text);

// Returns the largest boundary between two code points of valid text that is <= limit; at least one code point lies
// before it.
size_t code_point_boundary(std::string_view text, size_t limit);

}  // namespace nibble
