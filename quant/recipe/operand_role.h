// The six operands of a linear layer's three GEMMs, and which random bits each of them uses.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "quant/format/hadamard.h"
#include "quant/format/philox.h"
#include "quant/recipe/operand_spec.h"
#include "quant/recipe/recipe.h"

namespace nibble {

enum class OperandRole : uint8_t { forward_x, forward_w, grad_input_dy, grad_input_w, grad_weight_dy, grad_weight_x };
constexpr int operand_roles = 6;
constexpr std::array<OperandRole, operand_roles> all_operand_roles = {
    OperandRole::forward_x,    OperandRole::forward_w,      OperandRole::grad_input_dy,
    OperandRole::grad_input_w, OperandRole::grad_weight_dy, OperandRole::grad_weight_x};

// Where an operand stands in the YAML form of a recipe and in the struct.
struct OperandSlot {
  std::string_view full_name;  // "grad_weight.dy"
  OperandSpec LinearRecipe::*spec;
  constexpr std::string_view gemm() const { return full_name.substr(0, full_name.find('.')); }
  constexpr std::string_view operand() const { return full_name.substr(full_name.find('.') + 1); }
  std::string name() const { return std::string(full_name); }
};
inline constexpr std::array<OperandSlot, operand_roles> operand_slots = {  // by role
    {{"forward.x", &LinearRecipe::forward_x},
     {"forward.w", &LinearRecipe::forward_w},
     {"grad_input.dy", &LinearRecipe::grad_input_dy},
     {"grad_input.w", &LinearRecipe::grad_input_w},
     {"grad_weight.dy", &LinearRecipe::grad_weight_dy},
     {"grad_weight.x", &LinearRecipe::grad_weight_x}}};

std::string_view name_of(OperandRole role);  // "forward.x", "grad_weight.dy"
const OperandSpec& spec_of(const LinearRecipe& recipe, OperandRole role);
constexpr bool is_weight(OperandRole role) {
  return role == OperandRole::forward_w || role == OperandRole::grad_input_w;
}

// The micro-batch, the step and the layer for which an operand is made.
struct OperandContext {
  uint64_t seed = 0;
  uint32_t step = 0;
  uint32_t micro_batch = 0;
  uint32_t tensor_id = 0;  // tensor_id of the layer's weight
};

struct OperandStreams {
  NoiseStream noise;
  SignStream signs;
};
// Returns the random streams of an operand. An operand made from a weight is made once for all micro-batches of a step
// and so uses micro-batch 0, unless its signs are drawn for every micro-batch. Signs that are drawn once a step use
// micro-batch 0 in both operands of a GEMM.
OperandStreams operand_streams(OperandRole role, const OperandSpec& spec, const OperandContext& context);

}  // namespace nibble
