// Implements the numbers and strings of trainer/yaml/yaml_document.h.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "dist/base/text.h"
#include "trainer/yaml/yaml_document.h"

namespace nibble {
namespace {

__extension__ using uint128 = unsigned __int128;

// The parts of a number such as "-1_500.25e3Ki".
struct NumberParts {
  bool negative = false;
  std::string whole;     // digits, without underscores
  std::string fraction;  // digits
  int exponent = 0;
  int decimal_suffix = 0;  // powers of ten
  int binary_suffix = 0;   // powers of two
};

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

// Reads digits with single underscores between them.
bool take_digits(std::string_view& text, std::string& digits) {
  size_t i = 0;
  for (; i < text.size(); ++i) {
    if (is_digit(text[i])) {
      digits.push_back(text[i]);
    } else if (text[i] != '_' || i == 0 || !is_digit(text[i - 1]) || i + 1 == text.size() || !is_digit(text[i + 1])) {
      break;
    }
  }
  text.remove_prefix(i);
  return !digits.empty() && digits.size() <= 40;
}

bool take_exponent(std::string_view& text, int& exponent) {
  if (text.empty() || (text[0] != 'e' && text[0] != 'E')) return true;
  text.remove_prefix(1);
  if (text.starts_with('+')) text.remove_prefix(1);
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), exponent);
  if (error != std::errc() || std::abs(exponent) > 400) return false;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return true;
}

bool take_suffix(std::string_view text, NumberParts& parts) {
  if (text.empty()) return true;
  struct Suffix {
    std::string_view text;
    int decimal, binary;
  };
  constexpr Suffix suffixes[] = {{"k", 3, 0},   {"M", 6, 0},   {"G", 9, 0},  {"B", 9, 0},
                                 {"Ki", 0, 10}, {"Mi", 0, 20}, {"Gi", 0, 30}};
  for (const Suffix& suffix : suffixes) {
    if (suffix.text != text) continue;
    parts.decimal_suffix = suffix.decimal;
    parts.binary_suffix = suffix.binary;
    return true;
  }
  return false;
}

std::optional<NumberParts> split_number(std::string_view text) {
  NumberParts parts;
  if (text.starts_with('-') || text.starts_with('+')) {
    parts.negative = text[0] == '-';
    text.remove_prefix(1);
  }
  if (!take_digits(text, parts.whole)) return std::nullopt;
  if (parts.whole.size() > 1 && parts.whole[0] == '0') return std::nullopt;  // some YAML readers would take it as octal
  if (text.starts_with('.')) {
    text.remove_prefix(1);
    if (!take_digits(text, parts.fraction)) return std::nullopt;
  }
  if (!take_exponent(text, parts.exponent) || !take_suffix(text, parts)) return std::nullopt;
  return parts;
}

bool is_plain_yaml(std::string_view text) {
  if (text.empty() || text.size() > 200) return false;
  const bool safe = std::all_of(text.begin(), text.end(), [](char c) {
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '/' || c == '.' ||
           c == '-';
  });
  const char first = text.front();
  const bool letter = (first >= 'a' && first <= 'z') || (first >= 'A' && first <= 'Z') || first == '/' || first == '_';
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  constexpr std::string_view words[] = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"};
  return safe && letter && std::find(std::begin(words), std::end(words), lower) == std::end(words);
}

}  // namespace

std::optional<ParsedInteger> parse_integer(std::string_view text) {
  const auto parts = split_number(text);
  if (!parts) return std::nullopt;
  std::string digits = parts->whole + parts->fraction;
  int power = parts->exponent + parts->decimal_suffix - static_cast<int>(parts->fraction.size());
  while (digits.size() > 1 && digits.back() == '0') {
    digits.pop_back();
    ++power;
  }
  constexpr uint128 limit = std::numeric_limits<uint64_t>::max();
  uint128 value = 0;
  for (const char digit : digits) {
    value = value * 10 + static_cast<uint128>(digit - '0');
    if (value > limit) return std::nullopt;
  }
  if (value == 0) return ParsedInteger{};
  value <<= static_cast<unsigned>(parts->binary_suffix);  // at most 94 bits
  for (; power < 0; ++power) {
    if (value % 10 != 0) return std::nullopt;
    value /= 10;
  }
  for (; power > 0; --power) {
    value *= 10;
    if (value > limit) return std::nullopt;
  }
  if (value > limit) return std::nullopt;
  return ParsedInteger{parts->negative, static_cast<uint64_t>(value)};
}

std::optional<double> parse_real(std::string_view text) {
  const auto parts = split_number(text);
  if (!parts) return std::nullopt;
  const std::string canonical =
      fmt::format("{}{}.{}e{}", parts->negative ? "-" : "", parts->whole,
                  parts->fraction.empty() ? "0" : parts->fraction, parts->exponent + parts->decimal_suffix);
  double value = 0;
  const char* end = canonical.data() + canonical.size();
  const auto result = std::from_chars(canonical.data(), end, value);
  if (result.ec != std::errc() || result.ptr != end) return std::nullopt;
  value = std::ldexp(value, parts->binary_suffix);
  if (!std::isfinite(value)) return std::nullopt;
  return value;
}

std::string yaml_string(std::string_view text) {
  return is_plain_yaml(text) ? std::string(text) : quoted(text);
}

}  // namespace nibble
