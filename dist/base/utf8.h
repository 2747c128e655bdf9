// UTF-8 as Unicode defines it (no overlong forms, no surrogates, nothing above U+10FFFF).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace nibble {

// Byte offset of the first byte that does not start a valid sequence.
std::optional<size_t> find_invalid_utf8(std::string_view text);

// Replaces every byte that is not part of a valid sequence by U+FFFD. Returns how many there were.
uint64_t replace_invalid_utf8(std::string& text);

// The largest boundary between two code points that is <= limit, for valid text; at least one code point.
size_t code_point_boundary(std::string_view text, size_t limit);

}  // namespace nibble
