// The end of the model: norm, linear layer to the vocabulary, cross-entropy. Where it can, it works on one chunk of
// tokens after the other, through loss and gradient to the gradients of weight and input, so that the logits of a chunk
// only are ever in memory. It cannot where an operand of the linear layer is quantised: its scales belong to the whole
// micro-batch, which then is the one chunk.
#pragma once

#include <cstdint>

#include "dist/device/arena.h"
#include "model/blocks/block.h"
#include "model/config.h"
#include "model/layers/linear.h"
#include "model/layers/parameter.h"
#include "model/layers/step_context.h"
#include "quant/recipe/recipe.h"
#include "quant/tensor/tensor.h"

namespace nibble {

// Tokens of a chunk, a multiple of 16: of the fewest chunks whose logits stay in cache, but of at least 256 tokens
// where there are as many, as the product for the weight's gradient sums over them. All chunks are about as long.
int64_t head_chunk_tokens(int64_t tokens, int64_t vocabulary);

class Head {
 public:
  struct Sizes {
    int64_t sequences = 0;  // of a micro-batch
    int64_t sequence_length = 0;
    bool training = true;
    int64_t chunk_tokens = 0;  // a multiple of 16; 0: head_chunk_tokens()
    DeviceKind device = DeviceKind::cpu;
    int64_t tokens() const { return sequences * sequence_length; }
  };

  // Adds the norm's weight to the table, and the linear layer's unless the model ties it to the embedding's.
  Head(const ModelConfig& config, const Recipe& recipe, const Sizes& sizes, uint32_t embedding_id,
       ParameterTable& table);

  // Called twice: while the arenas measure, and after they have been committed; memory() is one of them.
  void allocate(Arena& weights, Arena& workspace);
  Arena& memory() { return memory_; }
  int64_t chunk_tokens() const { return chunk_; }
  Linear& linear() { return linear_; }
  void bind(const ParameterTable& table, const Tensor& weights, const Tensor& gradients);

  // input: [tokens, hidden], a whole micro-batch or less. Returns the sum over tokens of the cross-entropy in nats, in
  // token order; the same bits with and without gradient.
  double loss(const Tensor& input, const Tensor& targets, const StepContext& context);
  // Of a whole micro-batch: adds the parameters' gradients of scale * loss and overwrites `gradient` [tokens, hidden]
  // with that of the input. What loss() would have returned is loss_of_micro_batch() afterwards, which waits for the
  // device.
  struct Training {
    Tensor input;    // [tokens, hidden]
    Tensor targets;  // i32 [tokens]
    Tensor gradient;
    StepContext context;
    float scale = 1;
  };
  void loss_and_gradient(const Training& problem);
  double loss_of_micro_batch() const;
  // f32 [tokens, vocab] of at most one sequence; of one chunk, if the model is for training. Valid until the next call.
  Tensor logits(const Tensor& input, const StepContext& context);

 private:
  void chunk_loss_and_gradient(const Training& chunk, const Tensor& losses);

  ModelConfig config_;
  Sizes sizes_;
  Norm norm_;
  Linear linear_;
  int64_t chunk_;     // tokens
  int64_t capacity_;  // tokens of which there is memory for logits
  Arena memory_;

  Tensor normed_, grad_normed_;  // [capacity, hidden], [chunk, hidden]
  Tensor logits_;                // f32 [capacity, vocab]
  Tensor grad_logits_;           // [chunk, vocab]; FP32 gradients overwrite the logits
  Tensor losses_;                // f32 [tokens]
};

}  // namespace nibble
