// MLP block: input + W_down swiglu(W_gate_up norm(input)). For backward it saves the reciprocal root mean squares, gate
// and up, and what the two linear layers keep; it saves the outputs of the norm and of the activation only if the
// linear layer that reads them in forward reads them in backward too.
#pragma once

#include "model/blocks/block.h"

namespace nibble {

class MlpBlock final : public Block {
 public:
  MlpBlock(const ModelConfig& config, const Recipe& recipe, const BlockPosition& position, ParameterTable& table);

  void allocate(const LayerArenas& arenas) override;
  void bind(const BucketView& bucket) override;
  void forward(const Tensor& input, const Tensor& output, const Pass& pass) override;
  void backward(const Tensor& input, const Tensor& gradient, const Pass& pass) override;
  std::vector<Linear*> linears() override { return {&gate_up_linear_, &down_linear_}; }

 private:
  ModelConfig config_;
  Norm norm_;
  Linear gate_up_linear_;
  Linear down_linear_;

  // Saved from forward to backward.
  Tensor gate_up_;    // [tokens, 2 * intermediate]
  Tensor normed_;     // [tokens, hidden]; shares hidden_scratch_ unless backward reads it
  Tensor activated_;  // [tokens, intermediate]; shares grad_activated_ unless backward reads it
  // Workspace.
  Tensor hidden_scratch_;  // [tokens, hidden]: first the projection, later the gradient of normed
  Tensor grad_activated_;  // [tokens, intermediate]
  Tensor grad_gate_up_;    // [tokens, 2 * intermediate]
};

}  // namespace nibble
