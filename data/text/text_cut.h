// Cuts long text into short pieces where a tokenizer would cut it anyway.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

namespace nibble {

// Returns pieces of at most `limit` bytes (or one code point) that together are `text`, which is valid UTF-8. A cut is
// made after the last line feed that fits, else before the last space that follows something else, else between two
// code points.
std::vector<std::string_view> cut_text(std::string_view text, size_t limit);

}  // namespace nibble
