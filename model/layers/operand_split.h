// Splits an operand into the part that goes through a layer's four-bit GEMMs and a part that is multiplied beside them:
//
//   Y = Q(X') Q(W')^T + what the split adds,  dW = Q(dY^T) Q(X'^T)^T + what the split adds
//
// An operand pipeline asks its split before it makes an operand, and the layer after each product.
#pragma once

#include "model/layers/layer_arenas.h"
#include "quant/tensor/tensor.h"

namespace nibble {

class OperandSplit {
 public:
  OperandSplit() = default;
  virtual ~OperandSplit() = default;
  OperandSplit(const OperandSplit&) = delete;
  OperandSplit& operator=(const OperandSplit&) = delete;

  // These functions take memory for the stages of a layer's work; the workspace of one stage lives together.
  virtual void allocate_for_weight(const LayerArenas& arenas) = 0;
  virtual void allocate_for_read_back(Arena& workspace) = 0;
  virtual void allocate_for_input(const LayerArenas& arenas) = 0;
  virtual void allocate_for_backward(const LayerArenas& arenas) = 0;
  // Sets the counter of non-finite elements, i64 [1]; called before the first operand is made.
  virtual void set_non_finite(const Tensor& count) = 0;

  // Return whether Y, and dW, are split now. Where neither is, no function below is called.
  virtual bool splits_forward() const = 0;
  virtual bool splits_grad_weight() const = 0;
  // Returns whether the rows of an input share a scale in the part beside the GEMMs.
  virtual bool has_tensor_scale() const = 0;

  // Looks at the input of a forward pass with backward, split or not.
  virtual void observe(const Tensor& x) const = 0;
  // Makes the weight's part and returns W', which is valid as long as the stage's workspace.
  virtual Tensor split_weight(const Tensor& weight) = 0;
  // Completes the dequantised Q(W'), f32 [features_out, features_in], by the weight's part.
  virtual void complete_weight(const Tensor& values) = 0;
  // Makes the input's part and, with `keep`, what dW needs of it, and returns X'.
  virtual Tensor split_input(const Tensor& x, bool keep) = 0;
  // Corrects the dequantised forward operand, f32 [tokens, features_in], from which the weight gradient's X is made.
  virtual void complete_input(const Tensor& values) = 0;
  // The layer puts its product into sum_of(output), f32; add_forward() adds the split's and rounds the sum to `output`.
  virtual Tensor sum_of(const Tensor& output) const = 0;
  virtual void add_forward(const Tensor& sum, const Tensor& output) = 0;
  // Adds the split's part of dW to grad_weight, f32 [features_out, features_in].
  virtual void add_grad_weight(const Tensor& grad_output, const Tensor& grad_weight) = 0;
};

}  // namespace nibble
