#include "data/patterns/pattern_translation.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "data/patterns/code_point.h"
#include "data/patterns/code_point_set.h"
#include "data/patterns/pattern_reader.h"
#include "dist/base/error.h"
#include "dist/base/utf8.h"

namespace nibble {
namespace {

constexpr size_t longest_pattern = 4096;           // bytes
constexpr size_t longest_translation = 1U << 20U;  // bytes
constexpr uint32_t most_repetitions = 1000;

CodePointSet one_code_point(uint32_t code) {
  return CodePointSet({{code, code}});
}

class Translation : private PatternReader {
 public:
  Translation(std::string_view pattern, PatternDialect dialect, const std::string& name)
      : PatternReader(pattern, dialect, name) {}

  TranslatedPattern run() {
    if (pattern_.empty()) fail("an empty pattern");
    if (pattern_.size() > longest_pattern) fail(fmt::format("a pattern of more than {} bytes", longest_pattern));
    if (!is_utf8(pattern_)) fail("a pattern that is not UTF-8");
    while (at_ < pattern_.size()) {
      term();
    }
    if (!groups_.empty()) fail("a group that does not end");
    return finish();
  }

  TranslatedPattern run_literal() {
    if (pattern_.size() > longest_pattern) fail(fmt::format("a text of more than {} bytes", longest_pattern));
    while (at_ < pattern_.size()) one_literal(take_code_point());
    return finish();
  }

 private:
  struct Group {
    bool any_case;  // outside
    size_t begin;   // in the output
    bool is_look;   // (?= or (?!
  };
  struct Piece {
    std::string text;
    int set = -1;  // of sets_, in place of the text
  };

  void write(std::string_view text) { output_.push_back({.text = std::string(text)}); }
  void write_set(const CodePointSet& set) {
    const auto known = std::find(sets_.begin(), sets_.end(), set);
    output_.push_back({.text = {}, .set = static_cast<int>(known - sets_.begin())});
    if (known == sets_.end()) sets_.push_back(set);
  }
  void atom(const CodePointSet& set) {
    atom_ = output_.size();
    repeatable_ = true;
    write_set(set);
  }

  TranslatedPattern finish() const {
    TranslatedPattern result;
    const CodePointClasses classes = classes_of(sets_);
    if (classes.count > 256) fail("more than 256 classes of characters");
    std::vector<uint32_t> examples(classes.count);
    result.classes.resize(CodePointSet::last_code_point + 1);
    for (size_t run = 0; run < classes.starts.size(); ++run) {
      const bool is_last = run + 1 == classes.starts.size();
      const uint32_t end = is_last ? CodePointSet::last_code_point + 1 : classes.starts[run + 1];
      std::fill(result.classes.begin() + classes.starts[run], result.classes.begin() + end,
                static_cast<uint8_t>(classes.classes[run]));
      examples[classes.classes[run]] = classes.starts[run];
    }
    std::vector<std::string> texts;
    for (const CodePointSet& set : sets_) {
      std::string text;
      for (size_t number = 0; number < examples.size(); ++number) {
        if (set.contains(examples[number])) text += fmt::format("\\x{:02x}", number);
      }
      texts.push_back(text.empty() ? "(?!)" : "[" + text + "]");
    }
    for (const Piece& piece : output_) {
      result.regex += piece.set < 0 ? piece.text : texts[static_cast<size_t>(piece.set)];
      if (result.regex.size() > longest_translation) fail("a pattern with so many classes");
    }
    return result;
  }

  void term() {
    const char c = peek();
    if (c == '\\') return escape_outside_class();
    const bool was_literal = std::exchange(after_literal_, false);
    if (c == '[') return atom(bracket(0));
    if (c == '(') return open_group();
    if (c == ')') return close_group();
    if (c == '*' || c == '+' || c == '?') return repetition();
    if (c == '{' && interval()) return repetition();
    if (c == '|') {
      ++at_;
      write("|");
      repeatable_ = false;
      return;
    }
    if (c == '.') {
      ++at_;
      return atom(one_code_point('\n').complement());
    }
    if (c == '$') {
      ++at_;
      if (dialect_ == PatternDialect::oniguruma) {
        write("(?=");
        write_set(one_code_point('\n'));
        write("|\\z)");
      } else {
        write("\\z");
      }
      repeatable_ = false;
      return;
    }
    if (c == '^') fail("^");
    after_literal_ = was_literal;
    one_literal(take_code_point());
  }

  // One literal character. In Oniguruma some pairs of letters without case also stand for one character: ss for U+00DF.
  void one_literal(uint32_t code) {
    const bool was_literal = std::exchange(after_literal_, true);
    const uint32_t before = std::exchange(last_literal_, code);
    if (!any_case_) return atom(one_code_point(code));
    if (code >= 0x80) fail("a character above U+007F in (?i:...)");
    if (dialect_ == PatternDialect::oniguruma && was_literal) {
      const std::string pair = {static_cast<char>(before | 0x20U), static_cast<char>(code | 0x20U)};
      for (const std::string_view folded : {"ss", "ff", "fi", "fl", "st"}) {
        if (pair == folded) fail(fmt::format("the letters {} in (?i:...), which also stand for one character", pair));
      }
    }
    CodePointSet set;
    add_any_case(set, code, code);
    atom(set);
  }

  void escape_outside_class() {
    const size_t begin = at_;
    if (const auto set = class_escape()) {
      after_literal_ = false;
      return atom(*set);
    }
    at_ = begin;
    one_literal(literal_escape());
  }

  void open_group() {
    const size_t begin = output_.size();
    const bool outside = any_case_;
    bool is_look = false;
    if (starts("(?:") || starts("(?>") || starts("(?=") || starts("(?!")) {
      is_look = starts("(?=") || starts("(?!");
      write(pattern_.substr(at_, 3));
      at_ += 3;
    } else if (starts("(?i:")) {
      write("(?:");
      at_ += 4;
      any_case_ = true;
    } else if (starts("(?")) {
      fail(std::string(pattern_.substr(at_, code_point_boundary(pattern_.substr(at_), 4))));
    } else {
      write("(?:");
      ++at_;
    }
    groups_.push_back({outside, begin, is_look});
    repeatable_ = false;
  }

  void close_group() {
    if (groups_.empty()) fail("a ) without its (");
    ++at_;
    write(")");
    any_case_ = groups_.back().any_case;
    atom_ = groups_.back().begin;
    repeatable_ = !groups_.back().is_look;
    groups_.pop_back();
  }

  struct Interval {
    uint32_t least, most;  // UINT32_MAX = no end
    size_t size;           // bytes of the pattern
  };

  // Reads {n}, {n,}, {n,m} or {,m} at at_; anything else is literal.
  std::optional<Interval> interval() const {
    const std::string_view text = pattern_.substr(at_);
    const size_t end = text.find('}');
    if (end == std::string_view::npos || end > 16) return std::nullopt;
    const std::string_view inside = text.substr(1, end - 1);
    const size_t comma = inside.find(',');
    const auto number = [](std::string_view digits, uint32_t empty) -> std::optional<uint32_t> {
      if (digits.empty()) return empty;
      uint32_t value = 0;
      const auto [stop, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
      if (error != std::errc() || stop != digits.data() + digits.size()) return std::nullopt;
      return value;
    };
    if (inside.empty() || inside == ",") return std::nullopt;
    const auto least = number(inside.substr(0, comma), 0);
    const auto most = comma == std::string_view::npos ? least : number(inside.substr(comma + 1), UINT32_MAX);
    if (!least || !most) return std::nullopt;
    return Interval{*least, *most, end + 1};
  }

  void repetition() {
    if (!repeatable_) fail("a repetition of nothing");
    std::string text;
    const bool is_interval = peek() == '{';
    if (is_interval) {
      const Interval found = *interval();
      if (found.least > most_repetitions || (found.most != UINT32_MAX && found.most > most_repetitions)) {
        fail(fmt::format("more than {} repetitions", most_repetitions));
      }
      if (found.least > found.most) fail("a repetition whose most is less than its least");
      text = found.most == UINT32_MAX ? fmt::format("{{{},}}", found.least)
                                      : fmt::format("{{{},{}}}", found.least, found.most);
      at_ += found.size;
      if (found.least == found.most && peek() == '?') fail("{n}?");
    } else {
      text = pattern_[at_++];
    }
    write(text);
    if (peek() == '?') {
      ++at_;
      write("?");
    } else if (peek() == '+') {
      ++at_;
      if (is_interval && dialect_ == PatternDialect::oniguruma) {
        // There {n,m}+ repeats the repetition.
        output_.insert(output_.begin() + static_cast<std::ptrdiff_t>(atom_), Piece{.text = "(?:"});
        write(")+");
      } else {
        write("+");
      }
    }
    const char next = peek();
    if (next == '*' || next == '+' || next == '?' || (next == '{' && interval())) fail("a repetition of a repetition");
    repeatable_ = false;
  }

  std::vector<Piece> output_;
  std::vector<CodePointSet> sets_;
  std::vector<Group> groups_;
  size_t atom_ = 0;  // where in the output the last atom begins
  bool repeatable_ = false;
  bool after_literal_ = false;
  uint32_t last_literal_ = 0;
};

}  // namespace

TranslatedPattern translate_pattern(std::string_view pattern, PatternDialect dialect, const std::string& name) {
  return Translation(pattern, dialect, name).run();
}

TranslatedPattern literal_pattern(std::string_view text, const std::string& name) {
  return Translation(text, PatternDialect::oniguruma, name).run_literal();
}

}  // namespace nibble
