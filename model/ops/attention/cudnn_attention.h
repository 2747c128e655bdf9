// Attention by cuDNN's fused kernels: bf16, causal, grouped queries; with a document mask where there are engines for
// both passes (of 9.19: on compute capability 9.0). The backward pass is deterministic. Bits differ from those of the
// CPU, since tensor cores add in an order of their own. Internal to attention, but for the question
// which shapes cuDNN supports on a GPU that is only described.
// Implemented in cudnn_attention.cu; in a build without cuDNN by cudnn_attention_absent.cu.
#pragma once

#include <string>
#include <vector>

#include "model/ops/attention/attention.h"

namespace nibble::cuda {

// Makes the plans of both passes for this process's GPU, once a shape (seconds: cuDNN compiles kernels), and says why
// there are none, or nothing where there are.
std::string cudnn_attention_refusal(const AttentionShape& shape);
// "cuDNN 9.19.0 (engine 6 forward, 5 backward)". For a shape with plans, as the next three.
std::string cudnn_attention_name(const AttentionShape& shape);
int64_t cudnn_attention_workspace_floats(const AttentionShape& shape);
void cudnn_attention_forward(const AttentionForward& problem);
void cudnn_attention_backward(const AttentionBackward& problem);

// What cuDNN says of a GPU that is described by `device_json` (tests/cuda/devices): the engines that would run each
// pass, best first. A reason where there are none.
struct CudnnAttentionPass {
  std::vector<int64_t> engines;
  bool chosen_by_hand = false;  // the first engine is nibble's choice, not the heuristic's
  std::string refusal;
};
struct CudnnAttentionSupport {
  size_t version = 0;  // of cuDNN: 91900 for 9.19.0
  CudnnAttentionPass forward, backward;
};
CudnnAttentionSupport cudnn_attention_support(const AttentionShape& shape, const std::string& device_json);

}  // namespace nibble::cuda
