// The man page nibble(1), in the macros of man(7).
#pragma once

#include <string>

#include "trainer/shell/command_tree.h"

namespace nibble {

std::string man_page(const CommandEntry& program, const std::string& version);

}  // namespace nibble
