// The end of the model: norm, linear layer to the vocabulary, cross-entropy. If no operand of the linear layer is
// quantised, the head processes one chunk of tokens after the other, through loss and gradient to the gradients of
// weight and input, so that the logits of only one chunk are in memory. The scales of a quantised operand belong to the
// whole micro-batch, which then is the only chunk.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "dist/device/arena.h"
#include "model/blocks/block.h"
#include "model/config.h"
#include "model/layers/linear.h"
#include "model/layers/parameter.h"
#include "model/layers/step_context.h"
#include "quant/recipe/recipe.h"
#include "quant/tensor/tensor.h"

namespace nibble {

// Returns the tokens of a chunk that suit a device, a multiple of 16; the chunks of a micro-batch have about the same
// length. On a CPU there are as few as keep the logits of each in cache, but a chunk has at least 256 tokens if there
// are as many, because the GEMM of the weight's gradient sums over them. On a GPU, which reads and writes that gradient
// in memory for each chunk, the logits of a chunk take up to 2 GiB and a chunk has at most 8,192 tokens.
int64_t head_chunk_tokens(int64_t tokens, int64_t vocabulary, DeviceKind device = DeviceKind::cpu);

class Head {
 public:
  struct Sizes {
    int64_t sequences = 0;  // of a micro-batch
    int64_t sequence_length = 0;
    bool training = true;
    bool decoding = false;     // as in LanguageModelOptions
    int64_t chunk_tokens = 0;  // a multiple of 16; 0: what suits a CPU, so that bits do not depend on the device
    DeviceKind device = DeviceKind::cpu;
    bool sums_micro_batches = false;  // as in LanguageModelOptions
    int64_t tokens() const { return sequences * sequence_length; }
  };

  // Adds the norm's weight to the table, and the linear layer's weight unless the model ties it to the embedding's.
  Head(const ModelConfig& config, const Recipe& recipe, const Sizes& sizes, uint32_t embedding_id,
       ParameterTable& table);

  // Called twice: while the arenas measure, and after they have been committed; memory() and gradient_memory() are two
  // of these arenas.
  void allocate(Arena& weights, Arena& workspace);
  Arena& memory() { return memory_; }
  Arena& gradient_memory() { return gradient_memory_; }
  int64_t chunk_tokens() const { return chunk_; }
  Linear& linear() { return linear_; }
  // `embedding` is the bucket of a tied weight, and not used without one.
  void bind(const BucketView& head, const BucketView& embedding);

  // Gets the logits of a chunk of tokens, f32 [n, vocab], and the number of the first of them.
  using LogitsReader = std::function<void(int64_t first, const Tensor& logits)>;
  // Returns the sum over tokens of the cross-entropy in nats, in token order. `input` is [tokens, hidden], a whole
  // micro-batch or less. The bits are the same with and without gradient. `read` is called for each chunk, in order,
  // before the loss overwrites its logits.
  double loss(const Tensor& input, const Tensor& targets, const StepContext& context, const LogitsReader& read = {});
  // For a whole micro-batch, adds the parameters' gradients of scale * loss and overwrites `gradient` [tokens, hidden]
  // with that of the input. Afterwards losses() are those of each token, f32 [tokens], whose sum is what loss() would
  // have returned.
  struct Training {
    Tensor input;    // [tokens, hidden]
    Tensor targets;  // i32 [tokens]
    Tensor gradient;
    StepContext context;
    float scale = 1;
  };
  void loss_and_gradient(const Training& problem);
  // The gradient of a tied weight is not complete then. The embedding goes on adding to weight_gradient(), f32 [vocab,
  // hidden], and add_tied_gradient() after it adds that to the bound gradient, unless it is the bound gradient itself.
  Tensor weight_gradient() const { return linear_.grad_weight(); }
  void add_tied_gradient();
  Tensor losses() const { return losses_; }
  // Returns f32 [tokens, vocab] for at most one chunk, valid until the next call. In decoding, the rows of the input
  // are segments (LinearForward).
  Tensor logits(const Tensor& input, const StepContext& context, std::span<const OperandSegment> segments = {});

 private:
  struct Gradients {
    Tensor norm;    // f32 [hidden]
    Tensor weight;  // f32 [vocab, hidden]
  };
  void chunk_loss_and_gradient(const Training& chunk, const Tensor& losses, bool first);

  ModelConfig config_;
  Sizes sizes_;
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
