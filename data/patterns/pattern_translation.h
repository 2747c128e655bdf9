// The regular expressions of tokenizer files, translated for PCRE2.
//
// Hugging Face's library takes them as Oniguruma does, tiktoken as Rust's fancy-regex does, and the three libraries
// differ in what classes hold (PCRE2's \s has U+180E, Unicode versions differ), in letters without case, in `$`, and in
// possessive intervals. So a translation matches no characters but classes: code points of Unicode 16.0 that stand in
// the same sets of the pattern have one number, a byte, and the translated pattern is one of bytes. What cannot be
// translated exactly is an error, not a guess.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nibble {

enum class PatternDialect { oniguruma, rust };

struct TranslatedPattern {
  std::string regex;             // for PCRE2, of bytes
  std::vector<uint8_t> classes;  // of each code point: the byte that stands for it
};

// Throws ExitCode::bad_data, naming the element and where it stands in the pattern; `name` says whose pattern it is.
TranslatedPattern translate_pattern(std::string_view pattern, PatternDialect dialect, const std::string& name);

// Returns a pattern that matches `text` literally. Throws as translate_pattern() does.
TranslatedPattern literal_pattern(std::string_view text, const std::string& name);

}  // namespace nibble
