// The end of the model: norm, linear layer to the vocabulary, cross-entropy. If no operand of the linear layer is
// quantised, the head processes one chunk of tokens after the other, through loss and gradient to the gradients of
// weight and input, so that the logits of only one chunk are in memory. The scales of a quantised operand belong to the
// whole micro-batch, which then is the only chunk.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "dist/device/arena.h"
#include "model/blocks/block.h"
#include "model/config.h"
#include "model/layers/linear.h"
#include "model/layers/parameter.h"
#include "model/objectives/objective.h"
#include "quant/recipe/recipe.h"
#include "quant/tensor/tensor.h"

namespace nibble {

// Returns the tokens of a chunk that suit a device, a multiple of 16; the chunks of a micro-batch have about the same
// length. On a CPU there are as few as keep the logits of each in cache, but a chunk has at least 256 tokens if there
// are as many, because the GEMM of the weight's gradient sums over them. On a GPU, which reads and writes that gradient
// in memory for each chunk, the logits of a chunk take up to 2 GiB and a chunk has at most 8,192 tokens.
int64_t head_chunk_tokens(int64_t tokens, int64_t vocabulary, DeviceKind device = DeviceKind::cpu);

class Head final : public Objective {
 public:
  // Adds the norm's weight to the table, and the linear layer's weight unless the model ties it to the embedding's.
  Head(const ModelConfig& config, const Recipe& recipe, const ObjectiveSizes& sizes, uint32_t embedding_id,
       ParameterTable& table);

  std::string_view name() const override { return "loss"; }
  void allocate(Arena& weights, Arena& workspace) override;
  std::vector<Arena*> arenas() override { return {&memory_, &gradient_memory_}; }
  std::vector<Linear*> linears() override { return {&linear_}; }
  bool uses_embedding() const override { return config_.tied_head; }
  void bind(const BucketView& own, const BucketView& embedding) override;
  double loss(const ObjectivePass& pass, const LogitsReader& read = {}) override;
  void loss_and_gradient(const ObjectivePass& pass, const ObjectiveGradient& gradient) override;
  Tensor losses() const override { return losses_; }
  Tensor embedding_gradient() const override { return uses_embedding() ? linear_.grad_weight() : Tensor(); }
  void add_embedding_gradient() override;
  Tensor logits(const Tensor& input, const StepContext& context,
                std::span<const OperandSegment> segments = {}) override;
  int64_t chunk_tokens() const override { return chunk_; }

 private:
  struct Gradients {
    Tensor norm;    // f32 [hidden]
    Tensor weight;  // f32 [vocab, hidden]
  };
  void chunk_loss_and_gradient(const ObjectivePass& chunk, const ObjectiveGradient& gradient, const Tensor& losses,
                               bool first);

  ModelConfig config_;
  ObjectiveSizes sizes_;
  Norm norm_;
  Linear linear_;
  int64_t chunk_;  // tokens, for whose logits there is memory
  // The parameters' gradients are used more than once in a micro-batch, and must be formed beside those that are bound.
  bool has_own_gradients_;
  Arena memory_;
  Arena gradient_memory_;

  Gradients own_, bound_;        // of the micro-batch, of the group; empty without gradients of its own
  Tensor normed_, grad_normed_;  // [chunk, hidden]
  Tensor logits_;                // f32 [chunk, vocab]
  Tensor grad_logits_;           // [chunk, vocab]; FP32 gradients use the memory of the logits
  Tensor losses_;                // f32 [tokens]
};

}  // namespace nibble
