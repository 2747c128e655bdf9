// Completions of the command line for bash and zsh: commands, options, the choices of their values, keys after --set,
// and paths.
#pragma once

#include <string>
#include <vector>

#include "trainer/shell/command_tree.h"

namespace nibble {

// `keys` are what may stand before the equals sign after --set.
std::string bash_completion(const CommandEntry& program, const std::vector<std::string>& keys);
std::string zsh_completion(const CommandEntry& program, const std::vector<std::string>& keys);

}  // namespace nibble
