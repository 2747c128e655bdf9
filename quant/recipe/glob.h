// Names by pattern, as shells do it.
#pragma once

#include <string>
#include <string_view>

namespace nibble {

// Globs joined by |: * is any characters, ? any one, [a-c] one of them, [!a-c] one that is not. A glob with none of
// these is looked for inside the name; any other must match the name from end to end.
bool glob_matches(std::string_view globs, std::string_view name);

// What is wrong with the globs, such as "has an unclosed [". Empty: nothing.
std::string glob_mistake(std::string_view globs);

}  // namespace nibble
