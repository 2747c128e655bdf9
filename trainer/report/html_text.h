// Text that may stand in an HTML file.
#pragma once

#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

namespace nibble {

// In an element or a quoted attribute.
std::string escaped(std::string_view text);
// JSON inside a script element.
std::string script_json(const nlohmann::json& value);

}  // namespace nibble
