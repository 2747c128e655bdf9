// Recipes as YAML: how the six operands of a linear layer's three GEMMs are stored, which layers differ, and what
// changes late in the run. docs/configuration.md lists the keys.
//
//   name: mine
//   extends: nvfp4          # read first; what stands here is written over it
//   forward:                # Y = X W^T
//     x: {scale: four_over_six}
//   grad_input: bf16        # both operands: dX = dY W
//   grad_weight: {x: {format: bf16}}                             # dW = dY^T X
//   high_precision: [{match: "embedding|head", format: bf16}]    # takes the place of the other list
//   layers: [{last_blocks: 2, forward: mxfp8_e4m3}]
//   switch: {at: 0.82, gemms: forward, to: bf16}
//
// An operand that is not given is bf16.
#pragma once

#include <string>
#include <string_view>

#include "quant/recipe/recipe.h"
#include "trainer/config/yaml_document.h"

namespace nibble {

// From a mapping; a recipe that it extends is looked for as load_recipe() does. Throws ExitCode::bad_config with
// file:line:column: unknown keys and values, settings that contradict each other, recipes that extend each other in a
// circle or more than 8 deep; ExitCode::missing_input if the extended recipe is not there.
Recipe parse_recipe(const YamlNode& node, const std::string& config_directory = ".");

// From a file (a value that ends in .yaml or .yml or holds a slash), or by name: NAME.yaml in `config_directory`, in
// `config_directory`/../recipes, in configs/recipes of the current directory, in $NIBBLE_CONFIG_DIR/recipes and in the
// recipes that are installed with nibble. Throws ExitCode::missing_input, listing the places, if there is none.
// `extends` looks beside the file that holds it before all these.
Recipe load_recipe(const std::string& name_or_path, const std::string& config_directory = ".");

// The mapping with nothing left to look up, `indent` spaces in front of every line; parse_recipe() reads it back as the
// same recipe, which writes the same text.
std::string recipe_yaml(const Recipe& recipe, int indent = 0);

}  // namespace nibble
