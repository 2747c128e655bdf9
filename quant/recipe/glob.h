// Matches names against glob patterns, as shells do.
#pragma once

#include <string>
#include <string_view>

namespace nibble {

// Globs joined by |: * is any characters, ? any one, [a-c] one of them, [!a-c] one that is not. A glob with none of
// these is looked for inside the name; any other must match the name from end to end.
bool glob_matches(std::string_view globs, std::string_view name);

// Returns what is wrong with the globs, such as "has a [ without its ]"; empty when nothing is.
std::string glob_mistake(std::string_view globs);

}  // namespace nibble
