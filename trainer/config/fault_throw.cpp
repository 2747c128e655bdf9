#include "trainer/config/fault_throw.h"

#include <charconv>
#include <string>

#include "model/exchange.h"

namespace nibble {
namespace {

// Takes the number and the colon at the beginning of the text.
template <class Number>
bool take_number(std::string_view& text, Number& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || number < 0 || end == text.data() + text.size() || *end != ':') return false;
  text.remove_prefix(static_cast<size_t>(end - text.data()) + 1);
  return true;
}

}  // namespace

std::optional<FaultThrow> parse_fault_throw(std::string_view text) {
  FaultThrow fault;
  if (!take_number(text, fault.rank) || !take_number(text, fault.step) || !take_number(text, fault.block)) {
    return std::nullopt;
  }
  const std::optional<Direction> direction = parse_name<Direction>(text);
  if (!direction) return std::nullopt;
  fault.in_backward = *direction == Direction::backward;
  return fault;
}

}  // namespace nibble
