// The memory of a linear layer: operands, scratch of their making, and scratch of the GEMMs.
#include <fmt/format.h>

#include <array>

#include "model/layers/linear.h"

namespace nibble {

void Linear::allocate_made(Operand& operand, Arena& arena, Arena& workspace, int64_t rows, int64_t inner) const {
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
void Linear::allocate_for_backward(Operand& backward, const Operand& forward, const LayerArenas& arenas, Arena& arena,
                                   int64_t rows, int64_t inner) const {
  backward.dequantized = Tensor();
  if (reads_back(backward, forward)) {
    // An FP32 operand is a view of the values that are read back, so these values must stay.
    Arena& values_arena = backward.spec.format == Format::f32 ? arena : arenas.workspace;
    backward.dequantized = allocate_tensor(values_arena, DType::f32, {inner, rows});
  }
  allocate_made(backward, arena, arenas.workspace, rows, inner);
}

// Allocates the scratch memory of a GEMM, behind its operands.
void Linear::allocate_gemm(LinearProduct which, Arena& workspace, int64_t tokens) {
  const int64_t in = description_.features_in;
  const int64_t out = description_.features_out;
  const std::array<std::array<int64_t, 3>, linear_products> shapes{
      {{tokens, out, in}, {tokens, in, out}, {out, in, tokens}}};
  const auto index = static_cast<size_t>(which);
  const OperandSpec& a = operands_[2 * index].spec;
  const OperandSpec& b = operands_[2 * index + 1].spec;
  scratch_of(which) =
      allocate_gemm_scratch(workspace, {.a = a.format,
                                        .b = b.format,
                                        .m = shapes[index][0],
                                        .n = shapes[index][1],
                                        .k = shapes[index][2],
                                        .outer_scales = a.outer != OuterScale::tensor || b.outer != OuterScale::tensor,
                                        .row_scales = !row_scales_.empty() && which == LinearProduct::forward});
}

void Linear::allocate(const LayerArenas& arenas) {
  const int64_t in = description_.features_in;
  const int64_t out = description_.features_out;
  const int64_t tokens = arenas.tokens();
  training_ = arenas.training;
  decoding_ = arenas.decoding;
  set_weights_changed();

  Arena& workspace = arenas.workspace;
  const size_t mark = workspace.mark();
  if (outliers_) outliers_->allocate_for_weight(arenas);
  allocate_made(operand(OperandRole::forward_w), arenas.weights, workspace, out, in);
  workspace.release(mark);
  if (training_) {
    if (outliers_) outliers_->allocate_for_read_back(workspace);
    allocate_for_backward(operand(OperandRole::grad_input_w), operand(OperandRole::forward_w), arenas, arenas.weights,
                          in, out);
    workspace.release(mark);
  }
  if (outliers_) outliers_->allocate_for_input(arenas);
  if (training_) {
    // Forward makes the two operands of X together.
    allocate_for_backward(operand(OperandRole::grad_weight_x), operand(OperandRole::forward_x), arenas, arenas.saved,
                          in, tokens);
  }
  allocate_made(operand(OperandRole::forward_x), workspace, workspace, tokens, in);
  if (decoding_ && has_tensor_scale(operand(OperandRole::forward_x).spec)) {
    row_scales_ = allocate_tensor(workspace, DType::f32, {tokens, 2});
  }
  allocate_gemm(LinearProduct::forward, workspace, tokens);
  workspace.release(mark);
  if (!training_) return;
  if (outliers_) outliers_->allocate_for_backward(arenas);
  allocate_made(operand(OperandRole::grad_input_dy), workspace, workspace, tokens, out);
  allocate_made(operand(OperandRole::grad_weight_dy), workspace, workspace, out, tokens);
  // The two GEMMs run one after the other, and each reads the memory of both operands.
  const size_t gemm_mark = workspace.mark();
  allocate_gemm(LinearProduct::grad_input, workspace, tokens);
  workspace.release(gemm_mark);
  allocate_gemm(LinearProduct::grad_weight, workspace, tokens);
  workspace.release(mark);
}

}  // namespace nibble
