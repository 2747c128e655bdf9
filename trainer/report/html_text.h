// Escapes text for HTML files.
#pragma once

#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

namespace nibble {

// Returns the text as it may stand in an element or in a quoted attribute.
std::string escaped(std::string_view text);
// Returns the value as JSON that may stand inside a script element.
std::string script_json(const nlohmann::json& value);

}  // namespace nibble
