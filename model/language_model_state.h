// The members of a LanguageModel. Only its sources, language_model.cpp and language_model_layers.cpp, include this
// header.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "dist/device/arena.h"
#include "dist/device/device_graph.h"
#include "dist/device/thread_pool.h"
#include "model/blocks/block.h"
#include "model/head.h"
#include "model/language_model.h"

namespace nibble {

struct LanguageModel::State {
  State(const ModelConfig& model_config, const Recipe& recipe, const LanguageModelOptions& model_options);

  void allocate();
  void allocate_blocks();
  bool recomputes(size_t block) const { return !options.recompute.empty() && options.recompute[block]; }

  std::vector<Linear*> linears();
  Tensor input_of(size_t block) const { return residual[options.training ? block : 0]; }
  Pass whole_micro_batch(const StepContext& context, bool keep) const;
  // Checks token ids and copies them to `memory`, which is on the model's device. Returns [tokens].
  Tensor take_tokens(const Tensor& tokens, const Tensor& memory, int64_t sequences, int64_t sequence_length) const;
  void check_tokens(const Tensor& tokens, int64_t sequences, int64_t sequence_length) const;
  // Checks document starts and copies them to the model's device. Returns [tokens], or an empty tensor for an empty
  // one.
  Tensor take_document_starts(const Tensor& given, int64_t sequences, int64_t sequence_length) const;

  Tensor run_forward(const Tensor& tokens, const Pass& pass);
  void run_backward(const Tensor& tokens, const Pass& pass);
  void announce(uint64_t begin, uint64_t end) const {
    if (gradients_ready) gradients_ready(begin, end);
  }

  ModelConfig config;
  LanguageModelOptions options;
  int threads = compute_threads();
  ParameterTable table;
  uint32_t embedding_id = 0;
  std::vector<std::unique_ptr<Block>> blocks;
  std::vector<uint64_t> first_element;  // [blocks + 1]: first element in the flat buffers of each block and of the head
  std::function<void(uint64_t, uint64_t)> gradients_ready;
  std::optional<Head> head;

  Arena quantized_weights{"quantised weights", options.device};
  Arena residual_stream{"inputs of the blocks", options.device};
  Arena saved_activations{"activations saved for backward", options.device};
  Arena shared_activations{"activations of one block, shared",
                           options.device};  // of blocks that are recomputed, or without backward
  Arena workspace{"workspace", options.device};
  DeviceGraph graph{options.device, options.graphs};  // of a micro-batch's forward and backward
  bool weights_changed = true;                        // since the graph's last run
  bool measuring = false;                             // statistics of operands
  std::vector<Arena*> arenas;                         // the arenas above, and the head's

  Tensor embedding_weight, embedding_gradient;  // [vocab, hidden]
  Tensor rope_table;                            // f32 [sequence_length, head_dim / 2, 2]
  std::vector<Tensor> residual;                 // [tokens, hidden]: input of each block, and of the head
  Tensor gradient;                              // [tokens, hidden], of the residual stream
  Tensor token_ids, target_ids;                 // i32 [tokens], of the micro-batch
  Tensor document_starts;                       // i32 [tokens], of the micro-batch; empty without options.document_mask
};

}  // namespace nibble
