// A decoder-only language model: embedding, blocks from a pattern string, final norm, head. Forward and backward are
// written out; the model knows nothing of ranks, files or steps of an optimizer.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "model/config.h"
#include "model/layers/linear.h"
#include "model/layers/parameter.h"
#include "model/layers/step_context.h"
#include "quant/recipe/recipe.h"
#include "quant/tensor/tensor.h"

namespace nibble {

struct LanguageModelOptions {
  int64_t sequences = 1;        // per micro-batch
  int64_t sequence_length = 0;  // tokens per sequence; at most config.sequence_length
  bool training = true;         // false: no memory for backward
  DeviceKind device = DeviceKind::cpu;
  bool document_mask = false;        // passes may be given documents
  int64_t head_chunk_tokens = 0;     // tokens whose logits are in memory at a time; 0: model/head.h chooses
  bool graphs = false;               // on a GPU: forward and backward of a micro-batch are one graph
  std::vector<bool> recompute = {};  // per block: drop its activations and compute them again in backward; empty = none
};

struct MemoryLine {
  std::string what;  // "activations saved for backward"
  uint64_t bytes = 0;
};

class LanguageModel {
 public:
  // Plans and takes all memory for activations and quantised weights (ExitCode::out_of_memory if there is not enough).
  LanguageModel(const ModelConfig& config, const Recipe& recipe, const LanguageModelOptions& options);
  ~LanguageModel();

  const ModelConfig& config() const;
  const ParameterTable& parameters() const;
  std::vector<MemoryLine> memory() const;
  // One line a linear layer: its name and how its three GEMMs run ("nvfp4", "bf16").
  std::vector<std::string> describe_layers() const;

  // The flat buffers that the model reads and adds to: weights of config.dtype, gradients f32 (empty for inference),
  // both [parameters().flat_size()]. Call set_weights_changed() after each change of the weights: quantised copies are
  // made once, at the next forward pass.
  void bind(const Tensor& weights, const Tensor& gradients);
  void set_weights_changed();

  // tokens, targets: i32 [sequences or fewer, sequence_length] on the CPU, every target real and below vocab_size.
  // documents: of the tokens' shape, for each the index in its sequence of the first token of its document: attention
  // stays inside documents. Positions are those in the sequence, since rotary attention depends on distances only; all
  // targets count, also the first token of the next document. Empty: a token sees all earlier ones of its sequence.
  // Returns the sum over tokens of the cross-entropy in nats.
  double forward(const Tensor& tokens, const Tensor& targets, const StepContext& context,
                 const Tensor& documents = Tensor());
  // The same for a whole micro-batch, then adds the gradient of loss_scale * (that sum) to the bound gradients. Same
  // loss bits as forward().
  double forward_backward(const Tensor& tokens, const Tensor& targets, const StepContext& context, float loss_scale,
                          const Tensor& documents = Tensor());

  // From now on the backward passes of forward_backward() tell when gradients [begin, end) of the flat buffer are
  // complete, as soon as what completes them has been asked of the device: from the end of the buffer to its beginning,
  // all of it. An empty function: no more.
  void set_gradients_ready(std::function<void(uint64_t begin, uint64_t end)> ready);

  // Logits f32 [n, vocab_size] for one sequence of n tokens, n a multiple of 16 and at most sequence_length; of a model
  // for training, which has memory for a chunk of logits only, at most what that holds (model/head.h). Valid until the
  // next call.
  Tensor logits(const Tensor& tokens, const StepContext& context);

  // The linear layers, in the order of describe_layers(): names of their weights, and what follows is by that order.
  std::vector<std::string> linear_names() const;
  // Tensor ids of their weights: a tied head has the embedding's.
  std::vector<uint32_t> linear_weights() const;
  // Statistics of every operand that the passes from now on make, [linear layers] (resized); nullptr: no more.
  void set_statistics(std::vector<LinearStatistics>* statistics);
  // Delayed scaling: the history that each operand asks for, in steps, by [linear layers, 6 operand roles]; 0: none.
  // Where there are any, scale_by and met, f32 of the same shape, must be bound: the amax to scale by (0: the tensor's
  // own), and the largest met.
  std::vector<int> amax_histories() const;
  void bind_amax(const Tensor& scale_by, const Tensor& met);

  // Outlier retention, by linear layer: input channels, and how many of them the recipe retains (0: the layer is left
  // alone).
  struct OutlierLayer {
    std::string name;
    int64_t features_in = 0;
    int64_t count = 0;
  };
  std::vector<OutlierLayer> outlier_layers() const;
  // f32 [features_in of all linear layers]: where passes that keep add the squared norms of their input channels, in
  // layers that retain some; an empty tensor: no more.
  void bind_channel_norms(const Tensor& norms);
  // From now on these are retained: channel c of a layer is number c + features_in of all layers before it. Ascending,
  // as many in each layer as it retains; layers that now retain none pass over theirs.
  void set_outlier_channels(std::span<const int64_t> channels);

  // Q(w) of elements [begin, end) of the flat weights, as the forward passes of this step use them: f32 [end - begin].
  // NaN for elements of other tensors, of layers whose forward pass does not quantise weights, of retained channels.
  void dequantize_weights(uint64_t begin, uint64_t end, std::span<float> values, const StepContext& context);

  // Non-finite values met by quantisers since the last call; such a micro-batch's gradients must not be applied.
  int64_t take_non_finite_count();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace nibble
