// Attention on the GPU by kernels of nibble's own, with the bits of the CPU. They serve for comparison with the CPU,
// and where cuDNN is absent or does not support a shape: f32 and bf16, any head_dim and sequence length. They use no
// tensor cores, because these add in an order of their own. This header is internal to attention, and the problems are
// already checked. The sources are attention_exact_forward.cu and attention_exact_backward.cu.
#pragma once

#include "model/ops/attention/attention.h"

namespace nibble::cuda::exact_attention {

// Returns the floats of workspace that both passes need.
inline int64_t workspace_floats(const AttentionShape& shape) {
  return shape.tokens() * shape.query_heads;  // means
}
void forward(const AttentionForward& problem);
void backward(const AttentionBackward& problem);

}  // namespace nibble::cuda::exact_attention
