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
  // Throws ExitCode::bad_data if PCRE2 refuses the pattern or if it can match nothing; `name` says whose pattern it is.
  SplitPattern(TranslatedPattern pattern, std::string name);

  struct Match {
    size_t begin, end;  // begin < end
  };
  enum class Found {
    match,
    none,
    open,  // it depends on what follows the text
  };

  // Goes through a text from match to match.
  class Search {
   public:
    // Begins at `from` in valid UTF-8 text; `is_cut` says that the text goes on after its end. Pattern and text must
    // outlive the search.
    Search(const SplitPattern& pattern, std::string_view text, size_t from, bool is_cut);
    ~Search();
    Search(const Search&) = delete;
    Search& operator=(const Search&) = delete;

    // Looks for the first match after the last one. Throws ExitCode::bad_data if PCRE2 gives up, as it does with
    // patterns that would take exponential time.
    Found next(Match& match);

   private:
    void read_more();
    size_t advance(size_t classes);

    const SplitPattern& pattern_;
    std::string_view text_;
    bool is_cut_;
    std::string classes_;  // of a part of the text
    size_t at_ = 0;        // in classes_: where the search goes on,
    size_t at_byte_;       // and in the text
    size_t read_;          // bytes of the text whose classes are read
  };

 private:
  std::string name_;
  std::shared_ptr<const std::vector<uint8_t>> classes_;
  std::shared_ptr<void> code_;  // pcre2_code
};

}  // namespace nibble
