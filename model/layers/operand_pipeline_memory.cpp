// The memory of a linear layer's operands and of their making.
#include <fmt/format.h>

#include "model/layers/operand_pipeline.h"

namespace nibble {

void OperandPipeline::allocate_made(Operand& operand, Arena& arena, Arena& workspace, int64_t rows,
                                    int64_t inner) const {
  const bool from_dequantized = !operand.dequantized.empty();
  const std::string& location = description_.locations[static_cast<size_t>(operand.role)];
  const std::string where =
      fmt::format("{}{}{} of {}", location, location.empty() ? "" : ": ", name_of(operand.role), description_.name);
  check_supported(operand.spec, where);
  check_shape(operand.spec, rows, inner, where);
  const DType source = from_dequantized ? DType::f32 : description_.dtype;
  operand.storage = allocate_operand(arena, operand.spec, source, rows, inner, layout_of(operand.role));
  const int64_t scratch = quantize_scratch_floats(operand.spec, rows, inner);
  operand.scratch = scratch > 0 ? allocate_tensor(workspace, DType::f32, {scratch}) : Tensor();
}

// Allocates an operand of backward that is made in advance, in `arena`: [rows, inner], from a source [inner, rows].
void OperandPipeline::allocate_in_advance(Operand& backward, const Operand& forward, const LayerArenas& arenas,
                                          Arena& arena, int64_t rows, int64_t inner) const {
  backward.dequantized = Tensor();
  if (reads_back(backward, forward)) {
    // An FP32 operand is a view of the values that are read back, so these values must stay.
    Arena& values_arena = backward.spec.format == Format::f32 ? arena : arenas.workspace;
    backward.dequantized = allocate_tensor(values_arena, DType::f32, {inner, rows});
  }
  allocate_made(backward, arena, arenas.workspace, rows, inner);
}

void OperandPipeline::allocate_for_weights(const LayerArenas& arenas) {
  const int64_t in = description_.features_in;
  const int64_t out = description_.features_out;
  Arena& workspace = arenas.workspace;
  const size_t mark = workspace.mark();
  decoding_ = arenas.decoding;
  set_weights_changed();
  if (outliers_) outliers_->allocate_for_weight(arenas);
  allocate_made(operand(OperandRole::forward_w), arenas.weights, workspace, out, in);
  if (!arenas.training) return;
  workspace.release(mark);
  if (outliers_) outliers_->allocate_for_read_back(workspace);
  allocate_in_advance(operand(OperandRole::grad_input_w), operand(OperandRole::forward_w), arenas, arenas.weights, in,
                      out);
}

void OperandPipeline::allocate_for_forward(const LayerArenas& arenas) {
  const int64_t in = description_.features_in;
  const int64_t tokens = arenas.tokens();
  Arena& workspace = arenas.workspace;
  if (outliers_) outliers_->allocate_for_input(arenas);
  if (arenas.training) {
    // Forward makes the two operands of X together.
    allocate_in_advance(operand(OperandRole::grad_weight_x), operand(OperandRole::forward_x), arenas, arenas.saved, in,
                        tokens);
  }
  allocate_made(operand(OperandRole::forward_x), workspace, workspace, tokens, in);
  if (decoding_ && has_tensor_scale(operand(OperandRole::forward_x).spec)) {
    row_scales_ = allocate_tensor(workspace, DType::f32, {tokens, 2});
  }
}

void OperandPipeline::allocate_for_backward(const LayerArenas& arenas) {
  const int64_t out = description_.features_out;
  const int64_t tokens = arenas.tokens();
  Arena& workspace = arenas.workspace;
  if (outliers_) outliers_->allocate_for_backward(arenas);
  allocate_made(operand(OperandRole::grad_input_dy), workspace, workspace, tokens, out);
  allocate_made(operand(OperandRole::grad_weight_dy), workspace, workspace, out, tokens);
}

}  // namespace nibble
