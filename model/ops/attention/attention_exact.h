// Attention on the GPU by kernels of nibble's own, with the bits of the CPU: for comparison with it, and where cuDNN is
// absent or does not support a shape. f32 and bf16, any head_dim and sequence length. No tensor cores, since these
// add in an order of their own. Internal to attention: problems are checked.
// Implemented in attention_exact_forward.cu and attention_exact_backward.cu.
#pragma once

#include "model/ops/attention/attention.h"

namespace nibble::cuda::exact_attention {

// Floats of workspace, for both passes.
int64_t workspace_floats(const AttentionShape& shape);
void forward(const AttentionForward& problem);
void backward(const AttentionBackward& problem);

}  // namespace nibble::cuda::exact_attention
