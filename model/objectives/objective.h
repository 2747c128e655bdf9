// A loss on the output of a model's blocks, before the final norm. A model has a list of objectives
// (model/objectives/objective_kind.h): the first predicts the next token, and its logits are the model's. Each has a
// bucket of parameters of its own, and may use the embedding's too.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "dist/device/arena.h"
#include "dist/device/device_kind.h"
#include "model/layers/linear.h"
#include "model/layers/step_context.h"
#include "model/layers/weight_view.h"
#include "quant/tensor/tensor.h"

namespace nibble {

struct ObjectiveSizes {
  int64_t sequences = 0;  // of a micro-batch
  int64_t sequence_length = 0;
  bool training = true;
  bool decoding = false;     // as in LanguageModelOptions
  int64_t chunk_tokens = 0;  // a multiple of 16; 0: what suits a CPU, so that bits do not depend on the device
  DeviceKind device = DeviceKind::cpu;
  bool sums_micro_batches = false;  // as in LanguageModelOptions
  int64_t tokens() const { return sequences * sequence_length; }
};

// Gets the logits of a chunk of tokens, f32 [n, vocab], and the number of the first of them.
using LogitsReader = std::function<void(int64_t first, const Tensor& logits)>;

struct ObjectivePass {
  Tensor input;    // [tokens, hidden]
  Tensor targets;  // i32 [tokens]
  StepContext context;
};

// Gradients are those of scale * loss.
struct ObjectiveGradient {
  Tensor input;  // [tokens, hidden], that of the pass's input
  float scale = 1;
  bool overwrite = true;  // `input` gets the gradient; false: the gradient is added, another objective's being there
};

class Objective {
 public:
  Objective() = default;
  virtual ~Objective() = default;
  Objective(const Objective&) = delete;
  Objective& operator=(const Objective&) = delete;

  virtual std::string_view name() const = 0;

  // Called twice: while the arenas measure, and after they have been committed; arenas() are among these.
  virtual void allocate(Arena& weights, Arena& workspace) = 0;
  virtual std::vector<Arena*> arenas() = 0;
  virtual std::vector<Linear*> linears() = 0;

  virtual bool uses_embedding() const { return false; }
  // Sets what the passes that follow compute with. `embedding` is empty unless the objective uses it.
  virtual void bind(const BucketView& own, const BucketView& embedding) = 0;

  // Returns the sum over tokens of the loss in nats, in token order, for a micro-batch or less. The bits are the same
  // with and without gradient. `read` is called for each chunk, in order, before the loss overwrites its logits.
  virtual double loss(const ObjectivePass& pass, const LogitsReader& read) = 0;
  // For a whole micro-batch, adds the parameters' gradients and sets the input's. Afterwards losses() are those of each
  // token, f32 [tokens], whose sum is what loss() would have returned.
  virtual void loss_and_gradient(const ObjectivePass& pass, const ObjectiveGradient& gradient) = 0;
  virtual Tensor losses() const = 0;
  // Of an objective that uses the embedding: the gradient of its weight in this micro-batch, f32 [vocab, hidden], to
  // which the embedding goes on adding. add_embedding_gradient() then adds that to the bound gradient, unless it is the
  // bound gradient itself.
  virtual Tensor embedding_gradient() const { return {}; }
  virtual void add_embedding_gradient() {}

  // Returns the logits f32 [n, vocab] of at most chunk_tokens() tokens, valid until the next call. In decoding, the
  // rows of the input are segments (LinearForward).
  virtual Tensor logits(const Tensor& input, const StepContext& context, std::span<const OperandSegment> segments) = 0;
  virtual int64_t chunk_tokens() const = 0;
};

}  // namespace nibble
