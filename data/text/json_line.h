// One object of JSON lines, of which the value of one key is wanted.
#pragma once

#include <string>
#include <string_view>

namespace nibble {

// Returns the text under `key`; of several, the last. The values of other keys may be anything, even what JSON does not
// allow, such as NaN, as long as brackets and quotation marks match. If there is no such text, the result is empty and
// `fault` says why. `line` must be valid UTF-8; its capacity grows.
std::string text_of_json_line(std::string& line, std::string_view key, std::string& fault);

}  // namespace nibble
