#include "model/ops/attention/attention.h"

#include <atomic>
#include <string>

#include "dist/device/cuda_device.h"
#include "model/ops/attention/attention_backend_kind.h"
#include "model/ops/attention/attention_exact.h"
#include "model/ops/attention/attention_plans.h"
#include "model/ops/row/storage.h"

namespace nibble {
namespace {

std::atomic<AttentionBackendKind> backend_of_process{AttentionBackendKind::automatic};

const char* const asked_for = "it was asked for";
const char* const what_cudnn_needs =
    "cuDNN 9.10 or later and libnvrtc where the dynamic linker finds them (LD_LIBRARY_PATH), a build with cuDNN's "
    "headers, bf16 activations, a head_dim that is a multiple of 8 up to 128 (256 on compute capability 9.0), and "
    "data.document_mask on 9.0 only";

}  // namespace

void set_attention_backend(AttentionBackendKind backend) {
  backend_of_process = backend;
}

AttentionBackendKind attention_backend() {
  return backend_of_process;
}

namespace cuda {
namespace {

// Returns why the library is not asked for attention of this dtype; empty if it is.
std::string reason_not_to_ask(DType dtype) {
  static const bool without_gpu = visible_devices().count == 0;
  if (attention_backend() == AttentionBackendKind::exact) return asked_for;
  if (dtype != DType::bf16) return "activations are " + std::string(name_of(dtype));
  return without_gpu ? "no GPU is visible" : "";
}

// Throws if cuDNN is required; `reason` is why it cannot run.
void refuse_if_cudnn_is_required(const std::string& reason) {
  if (attention_backend() != AttentionBackendKind::cudnn) return;
  throw Error(
      ExitCode::bad_config, "attention was asked of cuDNN, which cannot run it: " + reason,
      std::string("set cuda.attention to automatic or exact, or give cuDNN what it needs: ") + what_cudnn_needs);
}

// Returns why attention of this use is not computed by cuDNN; empty if it is. The plans are made here.
std::string reason_against_cudnn(const AttentionUse& use) {
  std::string reason = reason_not_to_ask(use.dtype);
  if (reason.empty()) reason = attention_plans().plan(use.shape, use.training).refusal;
  if (!reason.empty()) refuse_if_cudnn_is_required(reason);
  return reason;
}

// Returns the plan to run a pass with, or null for the exact kernels.
const AttentionPlan* plan_for(const AttentionShape& shape, DType dtype, AttentionPass pass, const Tensor& workspace) {
  const std::string reason = reason_not_to_ask(dtype);
  if (!reason.empty()) {
    refuse_if_cudnn_is_required(reason);
    return nullptr;
  }
  const AttentionPlans::Choice choice = attention_plans().choose(shape, pass, workspace.elements());
  if (!choice.refusal.empty()) refuse_if_cudnn_is_required(choice.refusal);
  return choice.plan;
}

void check_workspace(const Tensor& workspace, int64_t floats) {
  NIBBLE_CHECK(workspace.dtype() == DType::f32 && workspace.elements() >= floats, "attention workspace is too small");
}

}  // namespace

// There is room for the exact kernels too, because they run smaller shapes for which the library's workspace is too
// small.
int64_t attention_workspace_floats(const AttentionUse& use) {
  const int64_t exact = exact_attention::workspace_floats(use.shape);
  if (use.shape.sequences == 0) return exact;
  const std::string reason = reason_against_cudnn(use);
  if (reason.empty()) return std::max(exact, attention_plans().plan(use.shape, use.training).workspace_floats());
  if (!use.training && reason != asked_for) attention_plans().say_exact(use.shape, reason);
  return exact;
}

void refuse_unasked_exact_attention(const AttentionUse& use, int64_t longest) {
  if (use.shape.sequence_length <= longest) return;
  const std::string reason = reason_against_cudnn(use);
  if (reason.empty() || reason == asked_for) return;
  throw Error(ExitCode::bad_config,
              "attention of " + std::to_string(use.shape.sequence_length) +
                  " tokens would be computed by nibble's exact kernels, because cuDNN cannot: " + reason,
              std::string("give cuDNN what it needs: ") + what_cudnn_needs +
                  "; or ask for the exact kernels with cuda.attention=exact, with which a run takes about 8 times as "
                  "long on an H200 and 17 times on a B200 (calculated for 1.3B parameters and sequences of 4,096 "
                  "tokens)");
}

void attention_forward(const AttentionForward& problem) {
  if (problem.shape.tokens() == 0) return;
  // The library has no plan for queries that begin inside a sequence.
  const AttentionPlan* const plan =
      problem.cache.empty() ? plan_for(problem.shape, problem.output.dtype(), AttentionPass::forward, problem.workspace)
                            : nullptr;
  if (plan != nullptr) {
    plan->forward(problem);
  } else {
    exact_attention::forward(problem);
  }
}

void attention_backward(const AttentionBackward& problem) {
  if (problem.shape.tokens() == 0) return;
  const AttentionPlan* const plan =
      plan_for(problem.shape, problem.grad_qkv.dtype(), AttentionPass::backward, problem.workspace);
  if (plan != nullptr) {
    plan->backward(problem);
  } else {
    check_workspace(problem.workspace, exact_attention::workspace_floats(problem.shape));
    exact_attention::backward(problem);
  }
}

}  // namespace cuda

std::string describe_attention_backend(const AttentionUse& use) {
  const std::string reason = cuda::reason_against_cudnn(use);
  if (!reason.empty()) return "exact: " + reason;
  return cuda::attention_plans().describe(cuda::attention_plans().plan(use.shape, use.training));
}

}  // namespace nibble
