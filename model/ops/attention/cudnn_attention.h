// Attention by cuDNN's fused kernels: bf16, causal, grouped queries, and with a document mask where there are engines
// for both passes (in 9.19: on compute capability 9.0). The graph of the backward pass is cuDNN's deterministic one.
// Bits differ from those of the CPU, because tensor cores add in an order of their own. This header is internal to
// attention, except for cudnn_attention_support(), which tells the shapes that cuDNN supports on a GPU that is only
// described. The source is cudnn/cudnn_attention.cu, or stub/cudnn_attention.cu in a build without cuDNN's headers.
#pragma once

#include <string>
#include <vector>

#include "model/ops/attention/attention_library.h"

namespace nibble::cuda {

// cuDNN on this process's GPU. Making a plan takes seconds, because cuDNN compiles kernels.
const AttentionLibrary& cudnn_attention();

// cuDNN's answer for a GPU that `device_json` describes (tests/cuda/devices): the engines that would run each pass,
// best first, or the reason why there are none.
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
