#include "data/patterns/pattern_reader.h"

#include <fmt/format.h>

#include <charconv>

#include "data/patterns/code_point.h"
#include "dist/base/error.h"

namespace nibble {
namespace {

constexpr int deepest_class = 16;

bool is_ascii_letter(uint32_t code) {
  return (code | 0x20U) >= 'a' && (code | 0x20U) <= 'z';
}

}  // namespace

void PatternReader::fail(const std::string& element) const {
  throw Error(ExitCode::bad_data,
              fmt::format("{}: its pattern has {} at byte {}, which nibble does not support", name_, element, at_),
              "supported are literals, classes with \\s \\S \\d \\D \\p \\P, (?:...), (?i:...), (?=...), (?!...), |, $ "
              "and the repetitions ? * + {n,m}");
}

uint32_t PatternReader::take_code_point() {
  const auto [code, size] = code_point_at(pattern_, at_);
  at_ += size;
  return code;
}

void PatternReader::add_any_case(CodePointSet& set, uint32_t first, uint32_t last) const {
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

std::optional<CodePointSet> PatternReader::class_escape() {
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

uint32_t PatternReader::literal_escape() {
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

uint32_t PatternReader::hexadecimal(size_t begin, size_t digits) {
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

CodePointSet PatternReader::bracket(int depth) {
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

void PatternReader::class_item(CodePointSet& set) {
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

}  // namespace nibble
