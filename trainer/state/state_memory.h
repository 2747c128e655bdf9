// The memory of the state that a recipe carries from one step to the next. Values that the model updates while it
// computes lie on its device; all others lie on the CPU.
#pragma once

#include "dist/device/arena.h"

namespace nibble {

struct StateMemory {
  Arena& host;
  Arena& device;
};

}  // namespace nibble
