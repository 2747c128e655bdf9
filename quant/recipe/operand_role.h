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
constexpr auto enum_names(OperandRole) {
  return std::to_array<EnumName<OperandRole>>({{OperandRole::forward_x, "forward.x"},
                                               {OperandRole::forward_w, "forward.w"},
                                               {OperandRole::grad_input_dy, "grad_input.dy"},
                                               {OperandRole::grad_input_w, "grad_input.w"},
                                               {OperandRole::grad_weight_dy, "grad_weight.dy"},
                                               {OperandRole::grad_weight_x, "grad_weight.x"}});
}
constexpr auto all_operand_roles = all_values<OperandRole>();
constexpr int operand_roles = all_operand_roles.size();

// Where an operand stands in the YAML form of a recipe and in the struct.
struct OperandSlot {
  OperandRole role;
  OperandSpec LinearRecipe::*spec;
  constexpr std::string_view full_name() const { return name_of(role); }
  constexpr std::string_view gemm() const { return full_name().substr(0, full_name().find('.')); }
  constexpr std::string_view operand() const { return full_name().substr(full_name().find('.') + 1); }
  std::string name() const { return std::string(full_name()); }
};
inline constexpr std::array<OperandSlot, operand_roles> operand_slots = {  // by role
    {{OperandRole::forward_x, &LinearRecipe::forward_x},
     {OperandRole::forward_w, &LinearRecipe::forward_w},
     {OperandRole::grad_input_dy, &LinearRecipe::grad_input_dy},
     {OperandRole::grad_input_w, &LinearRecipe::grad_input_w},
     {OperandRole::grad_weight_dy, &LinearRecipe::grad_weight_dy},
     {OperandRole::grad_weight_x, &LinearRecipe::grad_weight_x}}};

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
