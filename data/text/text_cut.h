// Cuts long text where a tokenizer or a reader would cut it anyway.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

namespace nibble {

// Returns pieces of at most `limit` bytes (or one code point) that together are `text`, which is valid UTF-8. A cut is
// made after the last line feed that fits, else before the last space that follows something else, else between two
// code points.
std::vector<std::string_view> cut_text(std::string_view text, size_t limit);

// Returns where to cut valid UTF-8 text in two, near `position`: at most `distance` bytes from it after an empty line,
// else after a line, a sentence or a space, of several the nearest; else at the code point's boundary before
// `position`. Requires 0 < position < text.size(); a code point lies before the cut.
size_t cut_near(std::string_view text, size_t position, size_t distance);

}  // namespace nibble
