// Makes one operand of a recipe from a tensor, with the random bits that a linear layer would use, and measures it.
#pragma once

#include <memory>
#include <optional>

#include "dist/device/arena.h"
#include "quant/quantize/statistics.h"
#include "quant/recipe/operand_role.h"

namespace nibble {

struct OperandExperiment {
  LinearRecipe recipe;  // of the layer
  OperandRole role = OperandRole::forward_x;
  OperandContext context;
  Tensor input;            // [rows, inner] of the operand, finite
  bool transpose = false;  // the input is [inner, rows]
};

struct OperandResult {
  OperandSpec spec;                             // as the recipe has it
  std::unique_ptr<Arena> memory, saved_memory;  // what `operand` lies in, if it is not a view of the input
  QuantizedTensor operand;
  OperandStatistics statistics;  // against what was quantised last
  // from: saved: the input was first made into this forward operand, whose values were then quantised.
  std::optional<OperandSpec> forward;
  std::optional<OperandStatistics> from_input;  // against the input: both roundings
};

struct OperandValues {
  std::unique_ptr<Arena> memory;
  Tensor tensor;  // f32 [rows, inner]
};

// Throws bad_config where the operand's blocks or rotations do not divide the matrix, bad_data where a rotation leaves
// FP32's range.
OperandResult make_operand(const OperandExperiment& experiment);

// Of a rotated operand: the values of the orthogonal rotation.
OperandValues operand_values(const QuantizedTensor& operand);

}  // namespace nibble
