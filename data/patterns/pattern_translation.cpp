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
#include "dist/base/error.h"
#include "dist/base/utf8.h"

namespace nibble {
namespace {

constexpr size_t longest_pattern = 4096;           // bytes
constexpr size_t longest_translation = 1U << 20U;  // bytes
constexpr int deepest_class = 16;
constexpr uint32_t most_repetitions = 1000;

bool is_ascii_letter(uint32_t code) {
  return (code | 0x20U) >= 'a' && (code | 0x20U) <= 'z';
}

CodePointSet one_code_point(uint32_t code) {
  return CodePointSet({{code, code}});
}

class Translation {
 public:
  Translation(std::string_view pattern, PatternDialect dialect, const std::string& name)
      : pattern_(pattern), dialect_(dialect), name_(name) {}

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

  [[noreturn]] void fail(const std::string& element) const {
    throw Error(
        ExitCode::bad_data,
        fmt::format("{}: its pattern has {} at byte {}, which nibble does not support", name_, element, at_),
        "supported are literals, classes with \\s \\S \\d \\D \\p \\P, (?:...), (?i:...), (?=...), (?!...), |, $ "
        "and the repetitions ? * + {n,m}");
  }

  bool starts(std::string_view text) const { return pattern_.substr(at_).starts_with(text); }
  char peek() const { return at_ < pattern_.size() ? pattern_[at_] : '\0'; }
  uint32_t take_code_point() {
    const auto [code, size] = code_point_at(pattern_, at_);
    at_ += size;
    return code;
  }

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

  void add_any_case(CodePointSet& set, uint32_t first, uint32_t last) const {
    set.add(first, last);
    if (!any_case_) return;
    if (last >= 0x80) fail("a character above U+007F in (?i:...)");
    for (uint32_t code = first; code <= last; ++code) {
      if (!is_ascii_letter(code)) continue;
      set.add(code ^ 0x20U, code ^ 0x20U);
      if ((code | 0x20U) == 's') set.add(0x17F, 0x17F);    // long s
      if ((code | 0x20U) == 'k') set.add(0x212A, 0x212A);  // Kelvin sign
    }
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

  // Reads \s, \S, \d, \D, \p{..} or \P{..}; nothing, and at_ anywhere, if it is another escape.
  std::optional<CodePointSet> class_escape() {
    const size_t begin = at_++;
    const char kind = peek();
    ++at_;
    if (kind == 's') return white_space();
    if (kind == 'S') return white_space().complement();
    if (kind == 'd') return *code_points_of_category("Nd");
    if (kind == 'D') return code_points_of_category("Nd")->complement();
    if (kind != 'p' && kind != 'P') return std::nullopt;
    bool negated = kind == 'P';
    std::string_view property;
    if (peek() == '{') {
      const size_t end = pattern_.find('}', at_);
      if (end == std::string_view::npos) fail("\\p without its end");
      property = pattern_.substr(at_ + 1, end - at_ - 1);
      at_ = end + 1;
    } else if (dialect_ == PatternDialect::rust) {
      property = pattern_.substr(at_, 1);
      at_ += property.size();
    }
    if (property.starts_with('^')) {
      negated = !negated;
      property.remove_prefix(1);
    }
    const auto set = code_points_of_category(property);
    if (!set || any_case_) {
      const std::string element(pattern_.substr(begin, at_ - begin));
      at_ = begin;
      fail(any_case_ ? element + " in (?i:...)" : element + " (known are the general categories, such as L and Lu)");
    }
    return negated ? set->complement() : *set;
  }

  uint32_t literal_escape() {
    const size_t begin = at_++;
    if (at_ == pattern_.size()) fail("a backslash at its end");
    const uint32_t code = take_code_point();
    switch (code) {
      case 'n': return '\n';
      case 'r': return '\r';
      case 't': return '\t';
      case 'f': return '\f';
      case 'v': return '\v';
      case 'x': return hexadecimal(begin, 2);
      case 'u': return hexadecimal(begin, 4);
      default: break;
    }
    if (code >= 0x80 || is_ascii_letter(code) || (code >= '0' && code <= '9')) {
      at_ = begin;
      fail(fmt::format("\\{}", pattern_.substr(begin + 1, code_point_at(pattern_, begin + 1).size)));
    }
    return code;
  }

  // \x41, \u0041, or either with {...}
  uint32_t hexadecimal(size_t begin, size_t digits) {
    std::string_view text = pattern_.substr(at_, digits);
    size_t used = digits;
    if (peek() == '{') {
      text = pattern_.substr(at_ + 1);
      text = text.substr(0, text.find('}'));
      used = text.size() + 2;
    }
    uint32_t code = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), code, 16);
    if (text.empty() || error != std::errc() || end != text.data() + text.size() || at_ + used > pattern_.size() ||
        code > CodePointSet::last_code_point || (code >= 0xD800 && code < 0xE000)) {
      at_ = begin;
      fail("a code point that is none");
    }
    at_ += used;
    return code;
  }

  CodePointSet bracket(int depth) {
    if (depth > deepest_class) fail("classes nested so deeply");
    const size_t begin = at_++;
    if (starts(":")) fail("a POSIX class");
    const bool negated = peek() == '^';
    if (negated) ++at_;
    if (peek() == ']') fail("a class that begins with ]");
    CodePointSet set;
    while (peek() != ']') {
      if (at_ >= pattern_.size()) {
        at_ = begin;
        fail("a class that does not end");
      }
      if (starts("&&") || starts("--") || starts("~~")) fail(std::string(pattern_.substr(at_, 2)) + " in a class");
      if (peek() == '[') {
        set.add(bracket(depth + 1));
        continue;
      }
      class_item(set);
    }
    ++at_;
    return negated ? set.complement() : set;
  }

  void class_item(CodePointSet& set) {
    const auto one = [this] { return peek() == '\\' ? literal_escape() : take_code_point(); };
    const size_t begin = at_;
    if (peek() == '\\') {
      if (const auto named = class_escape()) return set.add(*named);
      at_ = begin;
    }
    const uint32_t first = one();
    uint32_t last = first;
    const bool is_range = peek() == '-' && at_ + 1 < pattern_.size() && pattern_[at_ + 1] != ']';
    if (is_range) {
      ++at_;
      if (peek() == '[' || peek() == '-') fail("a range without its end");
      last = one();
      if (last < first) fail("a range whose end is before its beginning");
    }
    add_any_case(set, first, last);
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

  std::string_view pattern_;
  PatternDialect dialect_;
  const std::string& name_;
  size_t at_ = 0;
  std::vector<Piece> output_;
  std::vector<CodePointSet> sets_;
  std::vector<Group> groups_;
  size_t atom_ = 0;  // where in the output the last atom begins
  bool repeatable_ = false;
  bool any_case_ = false;
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
