// A recipe as plain data: how the three GEMMs of a linear layer are quantised, and which layers are exempt. The trainer
// reads it from YAML (configs/recipes/); adding a recipe needs no C++.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "quant/operand_spec.h"

namespace nibble {

// Y = X W^T, dX = dY W, dW = dY^T X.
struct LinearRecipe {
  OperandSpec forward_x, forward_w;           // inner axis: features in
  OperandSpec grad_input_dy, grad_input_w;    // inner axis: features out
  OperandSpec grad_weight_dy, grad_weight_x;  // inner axis: tokens
  friend bool operator==(const LinearRecipe&, const LinearRecipe&) = default;
};

// All six operands in one unquantised format.
LinearRecipe plain_recipe(Format format);

// Exempts layers: by name (an extended regular expression searched in the parameter's name) or by the position of the
// block in the model. Exactly one of the conditions is set.
struct HighPrecisionRule {
  std::string match;      // "embedding|head"
  int first_blocks = 0;   // blocks 0 .. first_blocks-1
  int last_blocks = 0;    // the last so many blocks
  double last_share = 0;  // the last ceil(share * blocks) blocks
  Format format = Format::bf16;
};

struct Recipe {
  std::string name;
  LinearRecipe linear;
  std::vector<HighPrecisionRule> high_precision;  // the first rule that applies wins
};

// What a linear layer does. block is -1 for a layer outside the blocks (the head).
LinearRecipe resolve(const Recipe& recipe, std::string_view parameter_name, int block, int blocks);

}  // namespace nibble
