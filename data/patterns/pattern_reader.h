// Reads the characters and the classes of characters of a regular expression, from left to right, as the dialect has
// them. Whatever is not supported is an error that names the element and its place.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "data/patterns/code_point_set.h"
#include "data/patterns/pattern_translation.h"

namespace nibble {

class PatternReader {
 protected:
  PatternReader(std::string_view pattern, PatternDialect dialect, const std::string& name)
      : pattern_(pattern), dialect_(dialect), name_(name) {}

  // Throws ExitCode::bad_data for an element at at_.
  [[noreturn]] void fail(const std::string& element) const;

  bool starts(std::string_view text) const { return pattern_.substr(at_).starts_with(text); }
  char peek() const { return at_ < pattern_.size() ? pattern_[at_] : '\0'; }
  uint32_t take_code_point();

  // Adds the code points, inside (?i:...) also their other cases.
  void add_any_case(CodePointSet& set, uint32_t first, uint32_t last) const;
  // Reads \s, \S, \d, \D, \p{..} or \P{..}; nothing, and at_ anywhere, if it is another escape.
  std::optional<CodePointSet> class_escape();
  // Reads an escape that stands for one character.
  uint32_t literal_escape();
  // Reads [...]; classes may hold classes.
  CodePointSet bracket(int depth);

  std::string_view pattern_;
  PatternDialect dialect_;
  const std::string& name_;
  size_t at_ = 0;          // the next byte
  bool any_case_ = false;  // inside (?i:...)

 private:
  // \x41, \u0041, or either with {...}
  uint32_t hexadecimal(size_t begin, size_t digits);
  void class_item(CodePointSet& set);
};

}  // namespace nibble
