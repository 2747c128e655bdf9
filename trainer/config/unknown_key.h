// What stands in a name of a key, and what to say of a key that nibble does not have.
#pragma once

#include <string>
#include <string_view>

#include "trainer/yaml/yaml_document.h"

namespace nibble {

// "train" of "train.steps"; empty for a key that lies in no section.
std::string_view section_of(std::string_view key);
// "steps" of "train.steps".
std::string_view last_word(std::string_view key);
bool is_section(std::string_view name);

// Throws ExitCode::bad_config with the key that was probably meant: the one that other programs call so
// (usual_names in unknown_key.cpp), one with the same last word in another section, or one with a similar spelling.
[[noreturn]] void refuse_unknown_key(const SourceLocation& location, const std::string& key);

}  // namespace nibble
