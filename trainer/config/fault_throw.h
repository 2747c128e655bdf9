// The key fault.throw, with which people try what their jobs do when a rank fails.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace nibble {

// A rank that throws an error in a pass: "RANK:STEP:BLOCK:forward|backward".
struct FaultThrow {
  int rank = 0;
  uint64_t step = 0;  // as in the log: 1 is the first
  uint32_t block = 0;
  bool in_backward = false;
};

// Returns nullopt for a text that is written in another way.
std::optional<FaultThrow> parse_fault_throw(std::string_view text);

}  // namespace nibble
