// The regular expressions of tokenizer files, translated for PCRE2.
//
// Hugging Face's library takes them as Oniguruma does, tiktoken as Rust's fancy-regex does, and the three libraries
// differ in what classes hold (PCRE2's \s has U+180E, Unicode versions differ), in letters without case, in `$`, and in
// possessive intervals. So every class is written out as ranges of code points of Unicode 16.0, and every letter
// without case as the letters that it stands for. What cannot be translated exactly is an error, not a guess.
#pragma once

#include <string>
#include <string_view>

namespace nibble {

enum class PatternDialect { oniguruma, rust };

// Returns a pattern for PCRE2 with PCRE2_UTF and without PCRE2_UCP. Throws ExitCode::bad_data, naming the element and
// where it stands in the pattern; `name` says whose pattern it is.
std::string translate_pattern(std::string_view pattern, PatternDialect dialect, const std::string& name);

// Returns a pattern for PCRE2 that matches `text` literally.
std::string literal_pattern(std::string_view text);

}  // namespace nibble
