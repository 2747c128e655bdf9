#include "data/patterns/split_pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <new>
#include <utility>

#include "data/patterns/code_point.h"
#include "dist/base/error.h"

namespace nibble {
namespace {

constexpr size_t first_read = 4096;  // bytes of text
constexpr uint32_t match_limit = 10'000'000;
constexpr size_t first_stack_bytes = 64U << 10U;
constexpr size_t last_stack_bytes = 8U << 20U;

[[noreturn]] void fail(const std::string& name, int number, const std::string& what) {
  if (number == PCRE2_ERROR_NOMEMORY) throw std::bad_alloc();
  std::array<PCRE2_UCHAR, 256> message{};
  pcre2_get_error_message(number, message.data(), message.size());
  throw Error(ExitCode::bad_data, fmt::format("{}: {}: {}", name, what, reinterpret_cast<const char*>(message.data())),
              "write the pattern so that it can be matched in one pass");
}

// What a thread needs to match. One pair of offsets suffices, since translated patterns have no capturing groups.
struct Scratch {
  Scratch()
      : match(pcre2_match_data_create(1, nullptr)),
        context(pcre2_match_context_create(nullptr)),
        stack(pcre2_jit_stack_create(first_stack_bytes, last_stack_bytes, nullptr)) {
    if (match == nullptr || context == nullptr) throw std::bad_alloc();
    pcre2_set_match_limit(context, match_limit);
    if (stack != nullptr) pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~Scratch() {
    pcre2_match_data_free(match);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  pcre2_match_data* match;
  pcre2_match_context* context;
  pcre2_jit_stack* stack;
};

// A string whose memory the next search of the thread uses again.
std::string& spare() {
  thread_local std::string text;
  return text;
}

PCRE2_SPTR units(std::string_view text) {
  return reinterpret_cast<PCRE2_SPTR>(text.data());
}

}  // namespace

SplitPattern::SplitPattern(TranslatedPattern pattern, std::string name)
    : name_(std::move(name)), classes_(std::make_shared<const std::vector<uint8_t>>(std::move(pattern.classes))) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* const code = pcre2_compile(units(pattern.regex), pattern.regex.size(), 0, &error, &offset, nullptr);
  if (code == nullptr) fail(name_, error, "its pattern cannot be used");
  code_ = std::shared_ptr<void>(code, [](void* pointer) { pcre2_code_free(static_cast<pcre2_code*>(pointer)); });
  uint32_t matches_empty = 0;
  pcre2_pattern_info(code, PCRE2_INFO_MATCHEMPTY, &matches_empty);
  if (matches_empty != 0) {
    throw Error(ExitCode::bad_data, fmt::format("{}: its pattern can match an empty text", name_),
                "write the pattern so that every match has a character");
  }
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE | PCRE2_JIT_PARTIAL_HARD);  // where it fails, matching is only slower
}

SplitPattern::Search::Search(const SplitPattern& pattern, std::string_view text, size_t from, bool is_cut)
    : pattern_(pattern),
      text_(text),
      is_cut_(is_cut),
      classes_(std::exchange(spare(), {})),
      at_byte_(from),
      read_(from) {
  classes_.clear();
}

SplitPattern::Search::~Search() {
  if (classes_.capacity() <= 16 * first_read) spare() = std::move(classes_);
}

// Forgets what has been searched and reads the classes of a block of text, at least as many as are still to be
// searched.
void SplitPattern::Search::read_more() {
  classes_.erase(0, at_);
  at_ = 0;
  const std::vector<uint8_t>& table = *pattern_.classes_;
  const size_t end = std::min(text_.size(), read_ + std::max(first_read, 2 * classes_.size()));
  while (read_ < end) {
    const auto byte = static_cast<unsigned char>(text_[read_]);
    if (byte < 0x80) {
      classes_ += static_cast<char>(table[byte]);
      ++read_;
      continue;
    }
    const auto [code, size] = code_point_at(text_, read_);
    classes_ += static_cast<char>(table[code]);
    read_ += size;
  }
}

// Goes on by so many code points; returns where in the text that is.
size_t SplitPattern::Search::advance(size_t classes) {
  at_ += classes;
  if (read_ - at_byte_ == classes_.size() - (at_ - classes)) return at_byte_ += classes;  // one byte each
  for (; classes > 0; --classes) at_byte_ += code_point_size(text_[at_byte_]);
  return at_byte_;
}

SplitPattern::Found SplitPattern::Search::next(Match& match) {
  thread_local const Scratch scratch;
  for (;;) {
    const bool reads_all = read_ == text_.size();
    const uint32_t options = is_cut_ || !reads_all ? PCRE2_PARTIAL_HARD : 0;
    const int result = at_ == classes_.size()
                           ? PCRE2_ERROR_NOMATCH
                           : pcre2_match(static_cast<const pcre2_code*>(pattern_.code_.get()), units(classes_),
                                         classes_.size(), at_, options, scratch.match, scratch.context);
    if (result == PCRE2_ERROR_PARTIAL || result == PCRE2_ERROR_NOMATCH) {
      if (reads_all) return is_cut_ ? Found::open : Found::none;
      read_more();
      continue;
    }
    if (result < 0) {
      fail(pattern_.name_, result, fmt::format("matching its pattern at byte {} of {}", at_byte_, text_.size()));
    }
    const PCRE2_SIZE* const offsets = pcre2_get_ovector_pointer(scratch.match);
    const size_t size = offsets[1] - offsets[0];
    match.begin = advance(offsets[0] - at_);
    match.end = advance(size);
    return Found::match;
  }
}

}  // namespace nibble
