#include "data/tokenizers/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <new>

#include "data/patterns/code_point.h"
#include "dist/base/error.h"

namespace nibble {
namespace {

// Whether a character is its own normal form and neither combines with what stands before it nor is reordered. Only
// frequent characters of that kind are told; the others take the slow way.
bool is_inert(uint32_t code, NormalForm form) {
  if (code < 0x80 || (code >= 0x3400 && code < 0x4DC0) || (code >= 0x4E00 && code < 0xA000)) return true;
  if (code >= 0x20000 && code < 0x2F800) return true;
  if (form != NormalForm::nfc) return false;
  return code < 0x300 || (code >= 0x400 && code < 0x483) || (code >= 0x48A && code < 0x530) ||
         (code >= 0x2010 && code < 0x2028) || (code >= 0x3001 && code < 0x3020) || (code >= 0x3041 && code < 0x3097) ||
         (code >= 0x30A1 && code < 0x30FB) || (code >= 0xAC00 && code < 0xD7A4) || (code >= 0xFF01 && code < 0xFF61);
}

int canonical_class(utf8proc_int32_t code) {
  return utf8proc_get_property(code)->combining_class;
}

void append_normalized(std::string_view text, NormalForm form, std::string& result) {
  const bool is_compatibility = form == NormalForm::nfkc || form == NormalForm::nfkd;
  const bool is_composed = form == NormalForm::nfc || form == NormalForm::nfkc;
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | (is_compatibility ? UTF8PROC_COMPAT : 0) |
                                                      (is_composed ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE));
  std::vector<utf8proc_int32_t> codes;
  for (size_t at = 0; at < text.size();) {
    const auto [code, size] = code_point_at(text, at);
    at += size;
    utf8proc_int32_t parts[32];
    int last_class = 0;
    const auto count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(code), parts, 32, options, &last_class);
    NIBBLE_CHECK(count >= 0 && count <= 32, "a character decomposes into at most 18");
    codes.insert(codes.end(), parts, parts + count);
  }
  // utf8proc_decompose() would sort the marks in quadratic time.
  for (auto begin = codes.begin(); begin != codes.end();) {
    const auto end = std::find_if(begin, codes.end(), [](auto code) { return canonical_class(code) == 0; });
    std::stable_sort(begin, end, [](auto a, auto b) { return canonical_class(a) < canonical_class(b); });
    begin = end == codes.end() ? end : end + 1;
  }
  const auto count = utf8proc_normalize_utf32(codes.data(), static_cast<utf8proc_ssize_t>(codes.size()), options);
  NIBBLE_CHECK(count >= 0, "valid code points have a normal form");
  for (utf8proc_ssize_t i = 0; i < count; ++i) {
    append_code_point(result, static_cast<uint32_t>(codes[static_cast<size_t>(i)]));
  }
}

void replace(std::string_view text, const Normalizer::Replace& step, std::string& result) {
  size_t at = 0;
  SplitPattern::Match match{};
  SplitPattern::Search search(step.pattern, text, 0, false);
  while (search.next(match) == SplitPattern::Found::match) {
    result += text.substr(at, match.begin - at);
    result += step.content;
    at = match.end;
  }
  result += text.substr(at);
}

}  // namespace

// Cuts the text before inert characters, where the normal form of the whole is that of the parts; a part of one inert
// character is copied as it is.
std::string normal_form(std::string_view text, NormalForm form) {
  std::string result;
  result.reserve(text.size());
  size_t part = 0;       // where the part begins
  bool is_plain = true;  // the part so far is at most one inert character
  for (size_t at = 0; at < text.size();) {
    const auto [code, size] = code_point_at(text, at);
    if (is_inert(code, form)) {
      if (is_plain) {
        result += text.substr(part, at - part);
      } else {
        append_normalized(text.substr(part, at - part), form, result);
      }
      part = at;
      is_plain = true;
    } else {
      is_plain = false;
    }
    at += size;
  }
  if (is_plain) {
    result += text.substr(part);
  } else {
    append_normalized(text.substr(part), form, result);
  }
  return result;
}

std::string_view Normalizer::apply(std::string_view text, std::string& buffer) const {
  std::string_view current = text;
  std::string next;
  for (const Step& step : steps_) {
    next.clear();
    if (const auto* form = std::get_if<NormalForm>(&step)) {
      next = normal_form(current, *form);
    } else if (const auto* prepend = std::get_if<Prepend>(&step)) {
      if (current.empty()) continue;
      next = prepend->text;
      next += current;
    } else {
      replace(current, std::get<Replace>(step), next);
    }
    std::swap(buffer, next);
    current = buffer;
  }
  return current;
}

}  // namespace nibble
