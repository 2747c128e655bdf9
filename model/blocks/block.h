// A residual block: output = input + f(norm(input)). The model is a list of blocks.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/blocks/block_cache.h"
#include "model/config.h"
#include "model/layers/linear.h"
#include "model/layers/parameter.h"
#include "model/layers/step_context.h"
#include "model/layers/weight_view.h"
#include "quant/tensor/tensor.h"

namespace nibble {

// One pass over one micro-batch, or over one sequence in inference.
struct Pass {
  StepContext context;
  int64_t sequences = 0;
  int64_t sequence_length = 0;
  Tensor rope_table;            // f32 [at least sequence_length, head_dim / 2, 2]
  Tensor document_starts = {};  // as in AttentionForward; empty: a token sees all earlier ones
  bool keep = false;            // save what backward needs
  // In inference, the rows that are operands of their own (LinearForward); empty: the micro-batch is one.
  std::span<const OperandSegment> segments = {};
};

class Block {
 public:
  Block() = default;
  virtual ~Block() = default;
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  // Called twice: while the arenas measure, and after they have been committed. arenas.saved holds what forward saves
  // for backward, except the block's input, which the caller keeps.
  virtual void allocate(const LayerArenas& arenas) = 0;
  // Sets what the passes that follow compute with. Cheap: it is called before each.
  virtual void bind(const BucketView& bucket) = 0;

  // `input` and `output` are [tokens, hidden]; `output` may be the input's memory. With an empty output, forward only
  // computes what it saves for backward: a block whose saved tensors were given away makes them again, with the same
  // bits.
  virtual void forward(const Tensor& input, const Tensor& output, const Pass& pass) = 0;
  // Replaces `gradient` [tokens, hidden] of the output by that of the input, and adds the parameters' gradients.
  virtual void backward(const Tensor& input, const Tensor& gradient, const Pass& pass) = 0;

  // Decoding. make_cache() takes memory for what the block remembers of a text of up to `longest` tokens; it is called
  // twice, like allocate(). A block that remembers nothing returns null. decode() computes the tokens that follow those
  // in the cache, and adds them to it: every token has the same bits however the text is split. `pass` has one
  // sequence, these tokens, whose rows are segments, and the table of their positions.
  virtual std::unique_ptr<BlockCache> make_cache(Arena& /*arena*/, int64_t /*longest*/) const { return nullptr; }
  virtual void decode(const Tensor& input, const Tensor& output, const Pass& pass, BlockCache* /*cache*/) {
    forward(input, output, pass);
  }

  virtual std::vector<Linear*> linears() = 0;
};

// The position of a block in the model.
struct BlockPosition {
  int index = 0;
  int blocks = 0;
};

// Returns a name such as "blocks.3.norm.weight".
std::string block_parameter_name(const BlockPosition& position, std::string_view suffix);
// The inverse: returns the index of the block, -1 for a parameter outside the blocks, and nullopt for a name that
// begins with "blocks." but has no index.
std::optional<int> block_of_parameter(std::string_view name);

// Adds the weight of a linear layer of a block to the table and resolves its recipe.
struct BlockLinear {
  std::string_view suffix;  // "attention.qkv.weight"
  int64_t features_in = 0;
  int64_t features_out = 0;
  bool to_residual = false;  // projects back into the residual stream, so its initial values are smaller
  std::vector<TensorPart> parts = {};
};
Linear add_block_linear(const BlockLinear& linear, const BlockPosition& position, const ModelConfig& config,
                        const Recipe& recipe, ParameterTable& table);

// The RMS norm at the start of a block and at the end of the model.
class Norm {
 public:
  Norm(std::string name, const ModelConfig& config, ParameterTable& table);
  void allocate(const LayerArenas& arenas);
  void bind(const BucketView& bucket);
  // backward() adds the weight's gradient here, f32 [hidden]: in the bound gradients, until it is set anew.
  Tensor grad_weight() const { return grad_weight_; }
  void set_grad_weight(const Tensor& grad_weight) { grad_weight_ = grad_weight; }
  // `input` and `output` are [tokens, hidden].
  void forward(const Tensor& input, const Tensor& output) const;
  // Adds to grad_input the gradient with respect to the input of the last forward. `continues` says that these tokens
  // belong to the micro-batch of the last call, whose sum in the weight's gradient goes on.
  void backward(const Tensor& grad_output, const Tensor& input, const Tensor& grad_input, bool continues = false) const;

 private:
  uint32_t weight_id_;
  int64_t hidden_size_;
  double epsilon_;
  Tensor weight_, grad_weight_;  // [hidden]
  Tensor inverse_rms_;           // f32 [tokens], saved
  Tensor workspace_;             // f32 [token_ranges, hidden]
};

}  // namespace nibble
