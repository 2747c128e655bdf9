// Where a rank stands in the walk that all ranks make alike.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "dist/base/enum_names.h"

namespace nibble {

enum class Phase : uint8_t { start, train, validation, checkpoint };
constexpr auto enum_names(Phase) {
  return std::to_array<EnumName<Phase>>({{Phase::start, "start"},
                                         {Phase::train, "train"},
                                         {Phase::validation, "validation"},
                                         {Phase::checkpoint, "checkpoint"}});
}

// A short text in memory of fixed size, so that positions can be sent as they are. A longer text is cut off.
struct ShortText {
  std::array<char, 32> characters{};

  ShortText() = default;
  explicit ShortText(std::string_view text);
  std::string_view view() const { return characters.data(); }
};

struct Position {
  // Counts what a rank does. Two ranks that enter the same collective have the same number; whoever has the smaller one
  // is behind.
  uint64_t event = 0;
  uint64_t step = 0;  // as in the log: 1 is the first
  Phase phase = Phase::start;
  ShortText operation;   // "backward of blocks.3"; empty outside a pass
  ShortText collective;  // "all-gather": the rank waits in it for others; empty outside collectives
  uint64_t collective_number = 0;
};

// Returns a text such as "backward of blocks.3" or "all-gather number 812".
std::string operation_of(const Position& position);

}  // namespace nibble
