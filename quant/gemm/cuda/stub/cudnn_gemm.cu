// The cuDNN backend of builds without cuDNN's headers: it refuses every GEMM.
#include "dist/base/error.h"
#include "quant/gemm/cuda/cudnn_gemm.h"
#include "quant/gemm/cuda/gemm_backend.h"
#include "quant/gemm/gemm_backend_kind.h"

namespace nibble::cuda {
namespace {

class NoCudnn final : public GemmBackend {
 public:
  std::string refusal(const GemmShape& /*shape*/) override { return "this build of nibble knows no cuDNN"; }
  bool multiply(const GemmProblem& /*problem*/, Trial /*trial*/) override {
    NIBBLE_CHECK(false, "a GEMM of cuDNN in a build without it");
    return false;
  }
  std::string description() override { return "no cuDNN"; }
  std::string algorithm(const GemmProblem& /*problem*/) override { return "none"; }
};

}  // namespace

GemmBackend& cudnn_gemm() {
  static NoCudnn backend;
  return backend;
}

int64_t cudnn_gemm_configurations(const CudnnGemmShape& /*shape*/, const std::string& /*device_json*/) {
  return 0;
}

}  // namespace nibble::cuda
