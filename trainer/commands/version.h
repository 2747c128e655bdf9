// nibble --version: one thing a line, its name first. Scripts read it; lines are added, never renamed.
#pragma once

#include <string>

#include "trainer/config/build_facts.h"

namespace nibble {

// The lines, without a line end after the last. Starts neither MPI nor a device. Throws Error(usage) where NIBBLE_ISA
// names no level of this machine.
std::string version_text(const BuildFacts& build);

}  // namespace nibble
