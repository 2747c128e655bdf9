// Makes one operand of a recipe from a tensor, with the random bits that a linear layer would use, and measures its
// errors.
#pragma once

#include <memory>
#include <optional>

#include "dist/device/arena.h"
#include "quant/quantize/statistics.h"
#include "quant/recipe/operand_role.h"

namespace nibble {

struct OperandExperiment {
  LinearRecipe recipe;  // the layer's recipe
  OperandRole role = OperandRole::forward_x;
  OperandContext context;
  Tensor input;            // [rows, inner] of the operand, finite
  bool transpose = false;  // the input is [inner, rows]
};

struct OperandResult {
  OperandSpec spec;                             // the recipe's specification of the operand
  std::unique_ptr<Arena> memory, saved_memory;  // own the memory of `operand`, unless it is a view of the input
  QuantizedTensor operand;
  OperandStatistics statistics;  // errors against the values that were quantised last
  // Set for `from: saved`: the input was first quantised to this forward operand, and then its values were quantised.
  std::optional<OperandSpec> forward;
  std::optional<OperandStatistics> from_input;  // errors of both roundings together, against the input
};

struct OperandValues {
  std::unique_ptr<Arena> memory;
  Tensor tensor;  // f32 [rows, inner]
};

// Throws ExitCode::bad_config if the operand's blocks or rotations do not divide the matrix, and ExitCode::bad_data if
// a rotation leaves the range of FP32.
OperandResult make_operand(const OperandExperiment& experiment);

// Returns the values of the operand. Those of a rotated operand are the values of the orthogonal rotation.
OperandValues operand_values(const QuantizedTensor& operand);

}  // namespace nibble
