// Outlier retention of TetraJet-v2 (OutControl, arXiv:2510.27527): a few input channels of a linear layer, those with
// the largest norms, stay out of its four-bit GEMMs and are multiplied in eight bits:
//
//   Y = Q4(X') Q4(W')^T + Q8(X_o) Q8(W_o)^T,  dW' = Q4(dY^T) Q4(X'^T)^T,  dW_o = Q8(dY^T) Q8(X_o^T)^T
//
// X_o and W_o are the retained columns of X and W, gathered. X' and W' are X and W with zeros in these columns, so that
// shapes, blocks and rotations are as without retention. dX is one four-bit GEMM with all columns of W; if its W is
// made from the saved forward operand, the retained columns are the values of Q8(W_o). Both sums of Y are formed in
// FP32. The official implementation instead sorts the other channels by norm and closes the gaps.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/layers/operand_split.h"
#include "model/ops/columns.h"
#include "quant/quantize/quantize.h"
#include "quant/recipe/recipe.h"

namespace nibble {

class OutlierChannels final : public OperandSplit {
 public:
  struct Layer {
    int64_t features_in = 0;
    int64_t features_out = 0;
    DType dtype = DType::bf16;  // of weights and activations
    bool forward = false;       // Y is split
    bool grad_weight = false;   // dW is split
    bool from_saved = false;    // dW's X is made from the saved forward operand
  };

  // Returns how many of a layer's channels a rule retains: ceil(share * features_in) in whole blocks of 32, or 0 if
  // that would be half of them or more; such a layer is left unchanged.
  static int64_t count(const OutlierRule& rule, int64_t features_in);
  OutlierChannels(const OutlierRule& rule, const Layer& layer);
  int64_t count() const { return count_; }

  void allocate_for_weight(const LayerArenas& arenas) override;
  void allocate_for_read_back(Arena& workspace) override;
  void allocate_for_input(const LayerArenas& arenas) override;
  void allocate_for_backward(const LayerArenas& arenas) override;

  // Sets where observe() adds the squared norms of a micro-batch's channels: f32 [features_in], or empty.
  void set_norms(const Tensor& norms) { norms_ = norms; }
  void observe(const Tensor& x) const override;

  // Sets count() channels, ascending. Before this call nothing is split, and the functions below must not be called.
  void set_channels(std::span<const int32_t> channels);
  bool splits_forward() const override { return layer_.forward && !channels_.empty(); }
  bool splits_grad_weight() const override { return layer_.grad_weight && !channels_.empty(); }
  std::span<const int32_t> channels() const { return channels_; }
  // Returns whether the rows of X_o share a scale.
  bool has_tensor_scale() const override { return nibble::has_tensor_scale(spec_); }

  // Makes Q8(W_o) and returns W', which is valid as long as the stage's workspace.
  Tensor split_weight(const Tensor& weight) override;
  // Puts the values of Q8(W_o) into the zero columns of the dequantised Q4(W'), f32 [features_out, features_in].
  void complete_weight(const Tensor& values) override;
  // Makes Q8(X_o) and, with `keep`, Q8(X_o^T), and returns X'.
  Tensor split_input(const Tensor& x, bool keep) override;
  // Corrects the dequantised forward operand, f32 [tokens, features_in], from which the weight gradient's X is made:
  // sets its retained columns to zero if dW is split, else to the values of Q8(X_o) if Y is split.
  void complete_input(const Tensor& values) override;
  // Y = Q4(X') Q4(W')^T + Q8(X_o) Q8(W_o)^T: the caller puts the first product into sum_of(output), f32, and
  // add_forward() adds the second and rounds the sum to `output`.
  Tensor sum_of(const Tensor& output) const override;
  void add_forward(const Tensor& sum, const Tensor& output) override;
  // Adds dW_o to the retained columns of grad_weight, f32 [features_out, features_in].
  void add_grad_weight(const Tensor& grad_output, const Tensor& grad_weight) override;

  // Sets the counter of non-finite elements, i64 [1]; called before the first operand is made.
  void set_non_finite(const Tensor& count) override { observations_.non_finite = count; }

 private:
  QuantizedTensor make(const Tensor& source, bool transpose, const QuantizedTensor& storage);

  Layer layer_;
  OperandSpec spec_;  // of every eight-bit operand
  int64_t count_;
  std::vector<int32_t> channels_;
  Tensor columns_;  // i32 [count]: the channels, on the device of the operands
  Tensor norms_;
  OperandObservations observations_;

  Tensor weight_without_outliers_;           // [features_out, features_in]
  Tensor weight_columns_;                    // [features_out, count]
  QuantizedTensor weight_storage_, weight_;  // [features_out, count]
  Tensor weight_values_;                     // f32 [features_out, count]

  Tensor input_without_outliers_;                      // [tokens, features_in]
  Tensor input_columns_;                               // [tokens, count]
  QuantizedTensor input_storage_, input_;              // [tokens, count]
  Tensor input_values_;                                // f32 [tokens, count]
  QuantizedTensor saved_input_storage_, saved_input_;  // [count, tokens]
  Tensor output_;                                      // f32 [tokens, features_out]

  QuantizedTensor grad_output_storage_;           // [features_out, tokens]
  Tensor forward_scratch_, grad_weight_scratch_;  // u8, for the GEMMs
  Tensor grad_columns_;                           // f32 [features_out, count]
};

}  // namespace nibble
