// A decoder-only language model: embedding, blocks from a pattern string, objectives (final norm, head, loss). Forward
// and backward are written out; the model knows nothing of ranks, files or steps of an optimizer.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "dist/device/arena.h"
#include "dist/device/device_graph.h"
#include "dist/device/thread_pool.h"
#include "model/blocks/block.h"
#include "model/config.h"
#include "model/exchange.h"
#include "model/layers/linear.h"
#include "model/layers/parameter.h"
#include "model/layers/step_context.h"
#include "model/objectives/objective.h"
#include "model/text_cache.h"
#include "quant/recipe/recipe.h"
#include "quant/tensor/tensor.h"

namespace nibble {

struct LanguageModelOptions {
  int64_t sequences = 1;        // of a micro-batch
  int64_t sequence_length = 0;  // tokens of a sequence; at most config.sequence_length
  bool training = true;         // false: no memory for backward
  bool decoding = false;        // decode() may be called; not with training
  DeviceKind device = DeviceKind::cpu;
  bool document_mask = false;     // passes may be given document starts
  int64_t head_chunk_tokens = 0;  // tokens whose logits are in memory at a time; 0: what suits a CPU
  // The bound gradients may hold those of other micro-batches when a pass begins: a head in chunks or with a tied
  // weight has memory to form the micro-batch's gradient from zero. Without it they must be zero, lest the last bits of
  // the sum depend on what they held.
  bool sums_micro_batches = false;
  bool graphs = false;               // on a GPU: forward and backward of a micro-batch are one graph
  bool measure_only = false;         // takes no memory: memory() is all that the model is good for
  std::vector<bool> recompute = {};  // by block: drop its activations and compute them again in backward; empty: none
};

struct MemoryLine {
  std::string what;  // "activations saved for backward"
  uint64_t bytes = 0;
};

class LanguageModel {
 public:
  // Plans and takes all memory for activations and quantised weights. Throws ExitCode::out_of_memory if there is not
  // enough.
  LanguageModel(const ModelConfig& config, const Recipe& recipe, const LanguageModelOptions& options);
  LanguageModel(const LanguageModel&) = delete;
  LanguageModel& operator=(const LanguageModel&) = delete;

  const ModelConfig& config() const { return config_; }
  const ParameterTable& parameters() const { return table_; }
  std::vector<MemoryLine> memory() const;
  uint64_t memory_bytes() const;  // of all lines
  // Returns the linear layers in the order of the blocks, then of the objectives. Who keeps a state of them from step
  // to step hands it to them.
  std::span<Linear* const> linears() const { return linears_; }

  // From now on, passes get weights and gradients from this exchange, which must outlive them. After each change of the
  // weights the caller calls set_weights_changed(), because quantised copies are made only once, at the next forward
  // pass.
  void set_exchange(Exchange& exchange) { exchange_ = &exchange; }
  void set_weights_changed();
  // Uses an exchange of the model's own, with views of flat buffers: weights of config.dtype, gradients f32 (empty for
  // inference), both [parameters().flat_size()]. Layers have their weights at once, also before the first pass.
  void bind(const Tensor& weights, const Tensor& gradients);

  // Returns the sum over tokens of the cross-entropy in nats. `tokens` and `targets` are i32 [sequences or fewer,
  // sequence_length] on the CPU; every target is real and below vocab_size. `document_starts` has the shape of tokens
  // and holds for each token the index in its sequence of the first token of its document: attention stays inside
  // documents. If it is empty, a token sees all earlier ones of its sequence. Positions are those in the sequence,
  // because rotary attention depends on distances only. All targets count, also the first token of the next document.
  // `read` gets the logits of each chunk of tokens before the loss overwrites them.
  double forward(const Tensor& tokens, const Tensor& targets, const StepContext& context,
                 const Tensor& document_starts = Tensor(), const LogitsReader& read = {});
  // The same pass without loss: after start_logits(), logits_of() returns those of tokens [begin, end) of the
  // micro-batch, at most head_chunk_tokens(), f32 [end - begin, vocab_size], until the next call. The micro-batch is
  // one operand, as in training.
  void start_logits(const Tensor& tokens, const StepContext& context, const Tensor& document_starts = Tensor());
  Tensor logits_of(int64_t begin, int64_t end);
  int64_t head_chunk_tokens() const { return objectives_.front()->chunk_tokens(); }
  // Does the same for a whole micro-batch, with the same bits of the loss, and adds the gradient of loss_scale * (that
  // sum) to the bound gradients. It is formed from zero and then added: every bound gradient g becomes fl32(g + d),
  // where d is what the micro-batch alone would have made of a buffer of zeros.
  double forward_backward(const Tensor& tokens, const Tensor& targets, const StepContext& context, float loss_scale,
                          const Tensor& document_starts = Tensor());
  // The parts of forward_backward(), which do not wait for the device. take() copies a micro-batch to the device; the
  // tensors must not change before the device has copied them. start_forward_backward() computes; losses() are then
  // those of each token, f32 [tokens] on the model's device, until the next pass (sum_of_losses() in
  // model/ops/loss/cross_entropy.h adds them up).
  void take(const Tensor& tokens, const Tensor& targets, const Tensor& document_starts = Tensor());
  void start_forward_backward(const StepContext& context, float loss_scale);
  Tensor losses() const { return objectives_.front()->losses(); }
  // For a rank that has no micro-batch while others have one: makes the calls of the exchange that forward() or
  // start_forward_backward() would make, and computes nothing.
  void walk_forward();
  void walk_forward_backward();

  // Decoding. A cache is of one text of up to sequence_length tokens; it must not outlive the model. decode() computes
  // the tokens that follow those in the cache, i32 [n] on the CPU, n > 0, and adds them to it; logits_of(begin, end)
  // then returns the logits of these n tokens. Every token is an operand of its own (docs/numerics.md), so that its
  // logits have the same bits however the text is split; on a GPU only where GEMMs are exact. The device copies the
  // tokens without anybody waiting, so they must not change before logits have been read.
  std::unique_ptr<TextCache> make_cache() const;
  void decode(const Tensor& tokens, TextCache& cache, const StepContext& context);

  // Returns how many non-finite values quantisers have read since the last call. If it is not 0, the gradients must not
  // be applied.
  int64_t take_non_finite_count();
  // Moves the counts by layer to `counts`, i64 [linears()] on the model's device, without waiting for the device.
  void move_non_finite_counts(const Tensor& counts);

 private:
  void allocate();
  void allocate_blocks();
  bool recomputes(size_t block) const { return !options_.recompute.empty() && options_.recompute[block]; }

  Tensor input_of(size_t block) const { return residual_[options_.training ? block : 0]; }
  Pass whole_micro_batch(const StepContext& context, bool keep) const;
  // Returns the pass of a micro-batch without backward, whose tokens it takes.
  Pass take_for_forward(const Tensor& tokens, const StepContext& context, const Tensor& document_starts);
  // Checks token ids and copies them to `memory`, which is on the model's device. Returns [tokens].
  Tensor take_tokens(const Tensor& tokens, const Tensor& memory, int64_t sequences, int64_t sequence_length) const;
  void check_tokens(const Tensor& tokens, int64_t sequences, int64_t sequence_length) const;
  // Checks document starts and copies them to the model's device. Returns [tokens], or an empty tensor for an empty
  // one. Neither function waits for the device.
  Tensor take_document_starts(const Tensor& given, int64_t sequences, int64_t sequence_length) const;

  // Runs embedding and blocks, on the tokens that follow those in a cache if there is one. Returns the input of the
  // head, [tokens, hidden].
  Tensor run_forward(const Tensor& tokens, const Pass& pass, TextCache* cache = nullptr);
  // Runs backward of the blocks and the embedding, beginning with the gradient of the head's input.
  void run_backward(const Tensor& tokens, const Pass& pass);
  void clear_non_finite_counts();
  // The buckets are the embedding, one for each block, and one for each objective.
  static constexpr uint32_t embedding_bucket = 0;
  static uint32_t bucket_of(size_t block) { return static_cast<uint32_t>(block) + 1; }
  uint32_t objective_bucket(size_t objective) const { return bucket_of(blocks_.size() + objective); }
  void acquire_block(size_t block, Direction direction);
  void walk_trunk();
  // Acquires what an objective needs, calls work(objective), and releases it.
  template <class Work>
  void with_objective(size_t index, Direction direction, const Work& work);

  ModelConfig config_;
  LanguageModelOptions options_;
  int threads_ = compute_threads();
  ParameterTable table_;
  uint32_t embedding_id_ = 0;
  std::vector<std::unique_ptr<Block>> blocks_;
  LocalExchange own_exchange_;
  Exchange* exchange_ = &own_exchange_;
  std::vector<std::unique_ptr<Objective>> objectives_;  // the first has the logits
  std::vector<Linear*> linears_;

  Arena quantized_weights_{"quantised weights", options_.device};
  Arena residual_stream_{"inputs of the blocks", options_.device};
  Arena saved_activations_{"activations saved for backward", options_.device};
  // of blocks that are recomputed, or of all blocks in a model without backward
  Arena shared_activations_{"activations of one block, shared", options_.device};
  Arena workspace_{"workspace", options_.device};
  DeviceGraph graph_{options_.device, options_.graphs};  // of a micro-batch's forward and backward
  bool weights_changed_ = true;                          // since the graph's last run
  std::vector<Arena*> arenas_;                           // the arenas above, and the objectives'

  Tensor embedding_workspace_;                 // i32 [2, tokens]
  Tensor rope_table_;                          // f32 [sequence_length, head_dim / 2, 2]
  std::vector<Tensor> residual_;               // [tokens, hidden]: input of each block, and of the head
  Tensor gradient_;                            // [tokens, hidden], of the residual stream
  Tensor token_ids_, target_ids_;              // i32 [tokens], of the micro-batch
  Tensor head_input_;                          // [tokens, hidden], of start_logits() or decode()
  StepContext head_context_;                   // of start_logits() or decode()
  std::vector<OperandSegment> head_segments_;  // the tokens of decode(); empty after start_logits()
  Tensor document_starts_;                     // i32 [tokens], of the micro-batch; empty without options.document_mask
  Tensor taken_starts_;                        // the same, or empty if the micro-batch that take() copied has none
  Tensor non_finite_counts_;                   // i64 [linears]: non-finite values that the quantisers of each have read
};

}  // namespace nibble
