#include "quant/recipe/operand_role.h"

namespace nibble {
namespace {

constexpr std::array<Purpose, operand_roles> purposes = {Purpose::forward_x,      Purpose::forward_w,
                                                         Purpose::grad_input_dy,  Purpose::grad_input_w,
                                                         Purpose::grad_weight_dy, Purpose::grad_weight_x};

}  // namespace

const OperandSpec& spec_of(const LinearRecipe& recipe, OperandRole role) {
  return recipe.*(operand_slots[static_cast<size_t>(role)].spec);
}

OperandStreams operand_streams(OperandRole role, const OperandSpec& spec, const OperandContext& context) {
  const bool every_micro_batch = spec.signs == Signs::micro_batch;
  NoiseStream noise{.seed = context.seed,
                    .step = context.step,
                    .micro_batch = is_weight(role) && !every_micro_batch ? 0 : context.micro_batch,
                    .tensor_id = context.tensor_id,
                    .purpose = purposes[static_cast<size_t>(role)]};
  NoiseStream signs = noise;
  signs.micro_batch = every_micro_batch ? context.micro_batch : 0;
  signs.purpose = Purpose::hadamard_signs;
  return {noise, {signs, static_cast<uint32_t>(role) / 2}};  // two operands a GEMM
}

}  // namespace nibble
