// Recipes as YAML: how the six operands of a linear layer's three GEMMs are stored, and which layers are exempt.
//
//   name: nvfp4
//   forward:      # Y = X W^T
//     x: {format: nvfp4, block: 1x16, round: nearest}
//     w: {format: nvfp4, block: 16x16, round: nearest}
//   grad_input:   {dy: ..., w: ...}     # dX = dY W
//   grad_weight:  {dy: ..., x: ...}     # dW = dY^T X
//   high_precision:
//     - {match: "embedding|head", format: bf16}
//
// An operand that is not given is bf16.
#pragma once

#include <string>
#include <string_view>

#include "quant/recipe.h"
#include "trainer/yaml_document.h"

namespace nibble {

// From a mapping. Throws ExitCode::bad_config with file:line:column: unknown keys and values, and settings that
// contradict each other.
Recipe parse_recipe(const YamlNode& node);

// From a file (a value that ends in .yaml or .yml or holds a slash), or by name: NAME.yaml in `config_directory`, in
// `config_directory`/../recipes, in configs/recipes of the current directory, in $NIBBLE_CONFIG_DIR/recipes and in the
// recipes that are installed with nibble. Throws ExitCode::missing_input, listing the places, if there is none.
Recipe load_recipe(const std::string& name_or_path, const std::string& config_directory = ".");

// The mapping, `indent` spaces in front of every line; parse_recipe() reads it back as the same recipe.
std::string recipe_yaml(const Recipe& recipe, int indent = 0);

}  // namespace nibble
