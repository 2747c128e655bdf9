// What a recipe may say, for people and for editors: the last part of docs/configuration.md, and a JSON Schema. The
// keys of operands come from the table of quant/recipe/operand_table.h.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace nibble {

std::string recipe_reference();

// Returns the definitions of a JSON Schema, for its `$defs`; "recipe" is the recipe. It refuses what the parser
// refuses, except what depends on several operands or on an extended recipe.
nlohmann::ordered_json recipe_schema_definitions();
// The schema of a recipe in a file of its own.
std::string recipe_schema();

}  // namespace nibble
