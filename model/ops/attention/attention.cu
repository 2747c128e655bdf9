#include "model/ops/attention/attention.h"

#include <atomic>
#include <string>

#include "dist/device/cuda_device.h"
#include "model/ops/attention/attention_backend_kind.h"
#include "model/ops/attention/attention_exact.h"
#include "model/ops/attention/cudnn_attention.h"
#include "model/ops/row/storage.h"

namespace nibble {
namespace {

std::atomic<AttentionBackendKind> backend_of_process{AttentionBackendKind::automatic};

}  // namespace

void set_attention_backend(AttentionBackendKind backend) {
  backend_of_process = backend;
}

AttentionBackendKind attention_backend() {
  return backend_of_process;
}

namespace cuda {
namespace {

// Returns why attention of this shape and dtype is not computed by cuDNN; empty if it is. Throws if cuDNN is required
// and cannot run.
std::string reason_against_cudnn(const AttentionShape& shape, DType dtype) {
  static const bool without_gpu = visible_devices() == 0;
  const AttentionBackendKind backend = attention_backend();
  if (backend == AttentionBackendKind::exact) return "it was asked for";
  std::string reason;
  if (dtype != DType::bf16) {
    reason = "activations are " + std::string(name_of(dtype));
  } else if (without_gpu) {
    reason = "no GPU is visible";
  } else {
    reason = cudnn_attention_refusal(shape);
  }
  if (!reason.empty() && backend == AttentionBackendKind::cudnn) {
    throw Error(ExitCode::bad_config, "attention was asked of cuDNN, which cannot run it: " + reason,
                "set cuda.attention to automatic or exact, or a model that cuDNN supports: bf16 activations, "
                "head_dim 64 or 128, cuDNN 9.10 or later; documents are masked on compute capability 9.0 only");
  }
  return reason;
}

void check_workspace(const Tensor& workspace, int64_t floats) {
  NIBBLE_CHECK(workspace.dtype() == DType::f32 && workspace.elements() >= floats, "attention workspace is too small");
}

}  // namespace

// The dtype is not known here, so there is room for whichever kernels may run. If no GPU is visible, for example when a
// run is planned on another machine, it is the need of the exact kernels.
int64_t attention_workspace_floats(const AttentionShape& shape) {
  const int64_t exact = exact_attention::workspace_floats(shape);
  if (shape.sequences == 0 || !reason_against_cudnn(shape, DType::bf16).empty()) return exact;
  return std::max(exact, cudnn_attention_workspace_floats(shape));
}

void attention_forward(const AttentionForward& problem) {
  const AttentionShape& shape = problem.shape;
  const DType dtype = problem.output.dtype();
  if (shape.tokens() == 0) return;
  if (reason_against_cudnn(shape, dtype).empty()) {
    check_workspace(problem.workspace, cudnn_attention_workspace_floats(shape));
    cudnn_attention_forward(problem);
  } else {
    exact_attention::forward(problem);
  }
}

void attention_backward(const AttentionBackward& problem) {
  const AttentionShape& shape = problem.shape;
  const DType dtype = problem.grad_qkv.dtype();
  if (shape.tokens() == 0) return;
  if (reason_against_cudnn(shape, dtype).empty()) {
    check_workspace(problem.workspace, cudnn_attention_workspace_floats(shape));
    cudnn_attention_backward(problem);
  } else {
    check_workspace(problem.workspace, exact_attention::workspace_floats(shape));
    exact_attention::backward(problem);
  }
}

}  // namespace cuda

std::string describe_attention_backend(const AttentionShape& shape) {
  const std::string reason = cuda::reason_against_cudnn(shape, DType::bf16);
  return reason.empty() ? cuda::cudnn_attention_name(shape) : "exact: " + reason;
}

}  // namespace nibble
