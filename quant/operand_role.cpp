#include "quant/operand_role.h"

namespace nibble {
namespace {

struct RoleInfo {
  std::string_view name;
  Purpose purpose;
  uint32_t gemm;
  OperandSpec LinearRecipe::*spec;
};
constexpr std::array<RoleInfo, operand_roles> roles = {
    {{"forward.x", Purpose::forward_x, 0, &LinearRecipe::forward_x},
     {"forward.w", Purpose::forward_w, 0, &LinearRecipe::forward_w},
     {"grad_input.dy", Purpose::grad_input_dy, 1, &LinearRecipe::grad_input_dy},
     {"grad_input.w", Purpose::grad_input_w, 1, &LinearRecipe::grad_input_w},
     {"grad_weight.dy", Purpose::grad_weight_dy, 2, &LinearRecipe::grad_weight_dy},
     {"grad_weight.x", Purpose::grad_weight_x, 2, &LinearRecipe::grad_weight_x}}};

const RoleInfo& info_of(OperandRole role) {
  return roles[static_cast<size_t>(role)];
}

}  // namespace

std::string_view name_of(OperandRole role) {
  return info_of(role).name;
}

const OperandSpec& spec_of(const LinearRecipe& recipe, OperandRole role) {
  return recipe.*(info_of(role).spec);
}

OperandStreams operand_streams(OperandRole role, const OperandSpec& spec, const OperandContext& context) {
  const bool every_micro_batch = spec.signs == Signs::micro_batch;
  NoiseStream noise{.seed = context.seed,
                    .step = context.step,
                    .micro_batch = is_weight(role) && !every_micro_batch ? 0 : context.micro_batch,
                    .tensor_id = context.tensor_id,
                    .purpose = info_of(role).purpose};
  NoiseStream signs = noise;
  signs.micro_batch = every_micro_batch ? context.micro_batch : 0;
  signs.purpose = Purpose::hadamard_signs;
  return {noise, {signs, info_of(role).gemm}};
}

}  // namespace nibble
