// Attention by cuDNN in builds without cuDNN's headers: it computes nothing.
#include "model/ops/attention/cudnn_attention.h"

namespace nibble::cuda {
namespace {

const char* const reason = "built without cuDNN";

class NoCudnn final : public AttentionLibrary {
 public:
  std::string problem() const override { return reason; }
  std::string name() const override { return "cuDNN"; }
  std::vector<Engine> engines(const AttentionShape& /*shape*/, AttentionPass /*pass*/) const override { return {}; }
};

}  // namespace

const AttentionLibrary& cudnn_attention() {
  static const NoCudnn library;
  return library;
}

CudnnAttentionSupport cudnn_attention_support(const AttentionShape& /*shape*/, const std::string& /*device_json*/) {
  CudnnAttentionSupport support;
  support.forward.refusal = support.backward.refusal = reason;
  return support;
}

}  // namespace nibble::cuda
