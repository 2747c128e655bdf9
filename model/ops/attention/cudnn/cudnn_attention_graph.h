// The graph of cuDNN's backend API whose operations cuDNN recognises as fused causal attention, and the engines to run
// it with. This header is internal to attention and used only in builds with cuDNN's headers.
//
// Scores, masks and probabilities are virtual tensors, which exist in no memory: cuDNN fuses the operations between the
// real tensors. Source of the node lists: cuDNN's documentation of its attention graphs.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "model/ops/attention/attention_library.h"
#include "quant/gemm/cuda/cudnn/cudnn_backend.h"

namespace nibble::cuda {

// Identifiers of the tensors that are given at execution. From `scale` on, they are numbers in host memory.
enum class AttentionTensor : int64_t {
  query = 1,  // bf16, like key, value, output and their gradients: in the layout of AttentionForward
  key,
  value,
  output,
  log_sum_exp,  // f32 [sequences, query_heads, sequence_length], like the next
  mean_gradients,
  grad_output,
  grad_query,
  grad_key,
  grad_value,
  document_starts,  // i32 [sequences, sequence_length], if the shape has a document mask
  scale,            // of scores: f32
  minus_infinity,   // f32
  far_below,        // f32: replaces the scores of keys in other documents
  one               // f32
};

class AttentionGraph {
 public:
  // Throws ExitCode::bad_config if cuDNN refuses the graph itself.
  AttentionGraph(const AttentionShape& shape, AttentionPass pass, const CudnnTarget& target);

  // The configurations to try, best first; there are none if cuDNN has no engine for the graph. The graph must outlive
  // them.
  struct Configurations {
    std::unique_ptr<CudnnEngineConfiguration> by_hand;  // or null
    std::vector<CudnnDescriptor> of_heuristic;

    std::vector<const CudnnDescriptor*> all() const;
  };
  Configurations configurations() const;

 private:
  const CudnnTarget& target_;
  AttentionPass pass_;
  std::vector<CudnnDescriptor> parts_;  // tensors, operations and what they refer to
  CudnnDescriptor graph_;
};

}  // namespace nibble::cuda
