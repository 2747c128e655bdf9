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
  int64_t sequences = 1;        // of a micro-batch
  int64_t sequence_length = 0;  // tokens of a sequence; at most config.sequence_length
  bool training = true;         // false: no memory for backward
  DeviceKind device = DeviceKind::cpu;
  bool document_mask = false;        // passes may be given document starts
  int64_t head_chunk_tokens = 0;     // tokens whose logits are in memory at a time; 0: model/head.h chooses
  bool graphs = false;               // on a GPU: forward and backward of a micro-batch are one graph
  std::vector<bool> recompute = {};  // by block: drop its activations and compute them again in backward; empty: none
};

struct MemoryLine {
  std::string what;  // "activations saved for backward"
  uint64_t bytes = 0;
};

struct LayerDescription {
  std::string name;   // of the weight, "blocks.3.mlp.down.weight"
  std::string gemms;  // how its three GEMMs run: "forward nvfp4, grad_input nvfp4, grad_weight bf16"
};

class LanguageModel {
 public:
  // Plans and takes all memory for activations and quantised weights. Throws ExitCode::out_of_memory if there is not
  // enough.
  LanguageModel(const ModelConfig& config, const Recipe& recipe, const LanguageModelOptions& options);
  ~LanguageModel();

  const ModelConfig& config() const;
  const ParameterTable& parameters() const;
  std::vector<MemoryLine> memory() const;
  // Describes each linear layer, in the order of the model.
  std::vector<LayerDescription> describe_layers() const;

  // Binds the flat buffers that the model reads and adds to: weights of config.dtype, gradients f32 (empty for
  // inference), both [parameters().flat_size()]. The caller must call set_weights_changed() after each change of the
  // weights, because quantised copies are made only once, at the next forward pass.
  void bind(const Tensor& weights, const Tensor& gradients);
  void set_weights_changed();

  // Returns the sum over tokens of the cross-entropy in nats. `tokens` and `targets` are i32 [sequences or fewer,
  // sequence_length] on the CPU; every target is real and below vocab_size. `document_starts` has the shape of tokens
  // and holds for each token the index in its sequence of the first token of its document: attention stays inside
  // documents. If it is empty, a token sees all earlier ones of its sequence. Positions are those in the sequence,
  // because rotary attention depends on distances only. All targets count, also the first token of the next document.
  double forward(const Tensor& tokens, const Tensor& targets, const StepContext& context,
                 const Tensor& document_starts = Tensor());
  // Does the same for a whole micro-batch, with the same bits of the loss, and adds the gradient of loss_scale * (that
  // sum) to the bound gradients.
  double forward_backward(const Tensor& tokens, const Tensor& targets, const StepContext& context, float loss_scale,
                          const Tensor& document_starts = Tensor());

  // From now on the backward pass of forward_backward() calls ready(begin, end) when gradients [begin, end) of the flat
  // buffer are complete, as soon as the work that completes them has been given to the device. The ranges go from the
  // end of the buffer to its beginning and cover all of it. An empty function ends this.
  void set_gradients_ready(std::function<void(uint64_t begin, uint64_t end)> ready);

  // Returns logits f32 [n, vocab_size] for one sequence of n tokens, where n is a multiple of 16 and at most
  // sequence_length. A model for training has memory for one chunk of logits only, so n is at most a chunk
  // (model/head.h). The result is valid until the next call.
  Tensor logits(const Tensor& tokens, const StepContext& context);

  // Returns the names of the linear layers' weights in the order of describe_layers(); the functions below use the same
  // order.
  std::vector<std::string> linear_names() const;
  // Returns the tensor ids of these weights; a tied head has the embedding's.
  std::vector<uint32_t> linear_weights() const;
  // From now on, statistics of every operand that the passes make are written here, [linear layers] (resized); nullptr
  // ends this.
  void set_statistics(std::vector<LinearStatistics>* statistics);
  // Delayed scaling. amax_histories() returns the history that each operand asks for, in steps, [linear layers, 6
  // operand roles]; 0 means none. If there are any, bind_amax() must bind two f32 tensors of that shape: `scale_by`,
  // the amax to scale by (0: the tensor's own), and `observed`, the largest amax observed.
  std::vector<int> amax_histories() const;
  void bind_amax(const Tensor& scale_by, const Tensor& observed);

  // Outlier retention of a linear layer: its input channels, and how many of them the recipe retains (0: the layer is
  // left unchanged).
  struct OutlierLayer {
    std::string name;
    int64_t features_in = 0;
    int64_t count = 0;
  };
  std::vector<OutlierLayer> outlier_layers() const;
  // Binds f32 [features_in of all linear layers], to which passes with `keep` add the squared norms of their input
  // channels, in layers that retain some. An empty tensor ends this.
  void bind_channel_norms(const Tensor& norms);
  // From now on these channels are retained. Channel c of a layer has the number c + features_in of all layers before
  // it. The numbers are ascending, with as many in each layer as it retains; numbers of layers that retain none are
  // ignored.
  void set_outlier_channels(std::span<const int64_t> channels);

  // Writes Q(w) of elements [begin, end) of the flat weights, as the forward passes of this step use them: f32 [end -
  // begin]. Elements of other tensors, of layers whose forward pass does not quantise weights, and of retained channels
  // are NaN.
  void dequantize_weights(uint64_t begin, uint64_t end, std::span<float> values, const StepContext& context);

  // Returns how many non-finite values quantisers have read since the last call. If it is not 0, the gradients must not
  // be applied.
  int64_t take_non_finite_count();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace nibble
