// Where state lives that a recipe carries from one step to the next: what the model adds to while it computes lies on
// its device, everything else on the CPU.
#pragma once

#include "dist/device/arena.h"

namespace nibble {

struct StateMemory {
  Arena& host;
  Arena& device;
};

}  // namespace nibble
