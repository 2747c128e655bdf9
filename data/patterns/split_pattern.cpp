#include "data/patterns/split_pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <pcre2.h>

#include <array>
#include <new>
#include <utility>

#include "dist/base/error.h"

namespace nibble {
namespace {

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

PCRE2_SPTR units(std::string_view text) {
  return reinterpret_cast<PCRE2_SPTR>(text.data());
}

}  // namespace

SplitPattern::SplitPattern(const std::string& translated, std::string name) : name_(std::move(name)) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* const code = pcre2_compile(units(translated), translated.size(), PCRE2_UTF, &error, &offset, nullptr);
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

SplitPattern::Found SplitPattern::find(std::string_view text, size_t from, bool is_cut, Match& match) const {
  thread_local const Scratch scratch;
  const uint32_t options = PCRE2_NO_UTF_CHECK | (is_cut ? PCRE2_PARTIAL_HARD : 0);
  const int result = pcre2_match(static_cast<const pcre2_code*>(code_.get()), units(text), text.size(), from, options,
                                 scratch.match, scratch.context);
  if (result == PCRE2_ERROR_PARTIAL) return Found::open;
  if (result == PCRE2_ERROR_NOMATCH) return is_cut ? Found::open : Found::none;
  if (result < 0) fail(name_, result, fmt::format("matching its pattern at byte {} of {}", from, text.size()));
  const PCRE2_SIZE* const offsets = pcre2_get_ovector_pointer(scratch.match);
  match = {offsets[0], offsets[1]};
  return Found::match;
}

}  // namespace nibble
