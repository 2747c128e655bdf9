// Recipes as YAML: how the six operands of a linear layer's three GEMMs are stored, which layers differ, and what
// changes late in the run. docs/configuration.md lists the keys.
//
//   name: mine
//   extends: nvfp4          # is read first; the keys given here replace its keys
//   forward:                # Y = X W^T
//     x: {scale: four_over_six}
//   grad_input: bf16        # both operands: dX = dY W
//   grad_weight: {x: {format: bf16}}                             # dW = dY^T X
//   high_precision: [{match: "embedding|head", format: bf16}]    # replaces the whole list of the extended recipe
//   layers: [{last_blocks: 2, forward: mxfp8_e4m3}]
//   switch: {at: 0.82, gemms: forward, to: bf16}
//
// An operand that is not given is bf16.
#pragma once

#include <string>
#include <string_view>

#include "quant/recipe/recipe.h"
#include "trainer/yaml/yaml_document.h"

namespace nibble {

// Reads a recipe from a mapping; a recipe that it extends is looked for as load_recipe() does. Throws
// ExitCode::bad_config with file:line:column for unknown keys and values, for settings that contradict each other, and
// for recipes that extend each other in a circle or more than 8 deep; ExitCode::missing_input if there is no such
// extended recipe.
Recipe parse_recipe(const YamlNode& node, const std::string& config_directory = ".");

// Reads a recipe from a file, if the value ends in .yaml or .yml or holds a slash; ~ and variables in it are replaced
// (trainer/config/user_path.h, ExitCode::usage). Any other value is a name: NAME.yaml
// is looked for in `config_directory`, in `config_directory`/../recipes, in configs/recipes of the current directory,
// in $NIBBLE_CONFIG_DIR/recipes and in the recipes that are installed with nibble. The key `extends` looks first in the
// directory of the file that holds it. Throws ExitCode::missing_input with the list of directories if there is no such
// recipe.
Recipe load_recipe(const std::string& name_or_path, const std::string& config_directory = ".");

// Writes the recipe as a YAML mapping that refers to no other recipe, with `indent` spaces in front of every line.
// parse_recipe() reads it back as the same recipe, which writes the same text again.
std::string recipe_yaml(const Recipe& recipe, int indent = 0);

}  // namespace nibble
