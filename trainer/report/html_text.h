// Escapes text for HTML files.
#pragma once

#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

namespace nibble {

// Returns the text as it may stand in an element or in a quoted attribute.
std::string escaped(std::string_view text);
// Returns the value as JSON on one line. A byte that is not UTF-8, as a file's name may have, becomes U+FFFD.
std::string json_text(const nlohmann::json& value);
// Returns JSON text as it may stand inside a script element: every < is written \u003c.
std::string script_text(std::string_view json);

}  // namespace nibble
