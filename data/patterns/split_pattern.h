// A pattern that cuts text, compiled by PCRE2.
//
// Matches never depend on what stands before the place where the search begins, because translate_pattern() takes no
// look-behind: a search may begin at any place where a match or a gap may begin.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "data/patterns/pattern_translation.h"

namespace nibble {

class SplitPattern {
 public:
  // Takes a pattern that translate_pattern() made. Throws ExitCode::bad_data if PCRE2 refuses it or if it can match
  // nothing; `name` says whose pattern it is.
  SplitPattern(const std::string& translated, std::string name);

  struct Match {
    size_t begin, end;  // begin < end
  };
  enum class Found {
    match,
    none,
    open,  // it depends on what follows the text
  };
  // Looks for the first match at or after `from` in valid UTF-8 text. `is_cut` says that the text goes on after its
  // end. Throws ExitCode::bad_data if PCRE2 gives up, as it does with patterns that would take exponential time.
  Found find(std::string_view text, size_t from, bool is_cut, Match& match) const;

 private:
  std::string name_;
  std::shared_ptr<void> code_;  // pcre2_code
};

}  // namespace nibble
