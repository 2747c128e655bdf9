// Attention by cuDNN in builds without cuDNN's headers: it refuses every shape.
#include "model/ops/attention/cudnn_attention.h"

namespace nibble::cuda {
namespace {

const char* const reason = "built without cuDNN";

[[noreturn]] void fail() {
  NIBBLE_CHECK(false, reason);
  __builtin_unreachable();
}

}  // namespace

std::string cudnn_attention_refusal(const AttentionShape& /*shape*/) {
  return reason;
}

std::string cudnn_attention_name(const AttentionShape& /*shape*/) {
  fail();
}

int64_t cudnn_attention_workspace_floats(const AttentionShape& /*shape*/) {
  fail();
}

void cudnn_attention_forward(const AttentionForward& /*problem*/) {
  fail();
}

void cudnn_attention_backward(const AttentionBackward& /*problem*/) {
  fail();
}

CudnnAttentionSupport cudnn_attention_support(const AttentionShape& /*shape*/, const std::string& /*device_json*/) {
  CudnnAttentionSupport support;
  support.forward.refusal = support.backward.refusal = reason;
  return support;
}

}  // namespace nibble::cuda
