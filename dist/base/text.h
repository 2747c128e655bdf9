// Text in messages for people.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nibble {

// Returns the text in double quotes, on one line: quotes, backslashes and control characters are escaped as in YAML.
std::string quoted(std::string_view text);

// Returns the text in double quotes, cut if it is long.
std::string shown(std::string_view text);

// Returns the candidate most like `word`, if it is like enough to be a slip of the pen; else an empty text.
std::string_view nearest_word(std::string_view word, const std::vector<std::string_view>& candidates);

// Returns ` (did you mean "meant"?)`, or nothing if `meant` is empty.
std::string did_you_mean(std::string_view meant);

// Returns the phrase for a word that is none of the candidates: `"trian" (did you mean "train"?)`, or `"xyz"` if no
// candidate is like it.
std::string unknown_word(std::string_view word, const std::vector<std::string_view>& candidates);

// Returns a number with separators: "1,234,567".
std::string with_thousands(uint64_t value);

// Returns a duration such as "45s", "3m20s", "2h05m" or "12d03h".
std::string duration_text(double seconds);

// Counts equal texts, in alphabetical order: "2 linear: bf16; 10 linear: nvfp4", where `noun` is "linear".
std::string counted(const std::vector<std::string>& texts, std::string_view noun);

}  // namespace nibble
