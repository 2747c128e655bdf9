#include "model/ops/attention/attention.h"

#include <memory>

#include "dist/device/device.h"
#include "dist/device/dispatch.h"
#include "dist/device/profile.h"
#include "dist/device/thread_pool.h"
#include "model/ops/attention/attention_blocks.h"
#include "model/ops/attention/attention_exact.h"
#include "model/ops/row/storage.h"

namespace nibble {
namespace attention {

int64_t balanced_group(int64_t heads, int64_t sequence_length) {
  const int64_t wanted = compute_threads() == 1 ? 1 : 4 * compute_threads();
  int64_t group = longest_group;
  while (group > block_size && heads * div_ceil(sequence_length, group) < wanted) group /= 2;
  return group;
}

}  // namespace attention

namespace {

constexpr int64_t workspace_alignment = 64 / sizeof(float);

// Returns the size of one thread's part of the workspace. The two passes do not run at the same time, so they share it.
int64_t floats_a_thread(const AttentionShape& shape) {
  return std::max(attention::forward_floats(shape), attention::backward_floats(shape));
}

float* aligned_base(const Tensor& workspace) {
  void* base = workspace.data();
  size_t bytes = static_cast<size_t>(workspace.elements()) * sizeof(float);
  return static_cast<float*>(std::align(64, 64, base, bytes));
}

void check_workspace(const AttentionShape& shape, const Tensor& workspace) {
  NIBBLE_CHECK(workspace.dtype() == DType::f32 &&
                   workspace.elements() >= cpu::attention_workspace_floats(shape, compute_threads()),
               "attention workspace is too small");
}

void check(const AttentionShape& shape, const Tensor& document_starts) {
  NIBBLE_CHECK(shape.sequences >= 0 && shape.sequence_length > 0 && shape.head_dim > 0, "attention shape");
  NIBBLE_CHECK(shape.kv_heads > 0 && shape.query_heads % shape.kv_heads == 0, "kv heads divide query heads");
  NIBBLE_CHECK(shape.document_mask == !document_starts.empty(), "documents where the shape says so");
  if (shape.document_mask) check_vector(document_starts, DType::i32, shape.tokens());
}

void check(const AttentionForward& problem) {
  const AttentionShape& shape = problem.shape;
  const DType dtype = problem.output.dtype();
  check(shape, problem.document_starts);
  check_matrix(problem.qkv, dtype, shape.tokens(), shape.qkv_features());
  check_matrix(problem.output, dtype, shape.tokens(), shape.output_features());
  check_vector(problem.log_sum_exp, DType::f32, shape.tokens() * shape.query_heads);
  NIBBLE_CHECK(!problem.cache.empty() || problem.first == 0, "the first token of a sequence without a cache is 0");
  if (problem.cache.empty()) return;
  NIBBLE_CHECK(shape.sequences == 1 && !shape.document_mask && problem.first >= 0, "a cache is of one sequence");
  check_matrix(problem.cache.slice(0, problem.first + shape.sequence_length), dtype,
               problem.first + shape.sequence_length, 2 * shape.kv_heads * shape.head_dim);
}

void check(const AttentionBackward& problem) {
  const AttentionShape& shape = problem.shape;
  const DType dtype = problem.grad_qkv.dtype();
  check(shape, problem.document_starts);
  check_matrix(problem.grad_output, dtype, shape.tokens(), shape.output_features());
  check_matrix(problem.qkv, dtype, shape.tokens(), shape.qkv_features());
  check_matrix(problem.output, dtype, shape.tokens(), shape.output_features());
  check_matrix(problem.grad_qkv, dtype, shape.tokens(), shape.qkv_features());
  check_vector(problem.log_sum_exp, DType::f32, shape.tokens() * shape.query_heads);
}

}  // namespace

namespace cpu {

int64_t attention_workspace_floats(const AttentionShape& shape, int threads) {
  return threads * floats_a_thread(shape) + workspace_alignment;
}

static int64_t attention_workspace_floats(const AttentionUse& use) {
  return attention_workspace_floats(use.shape, compute_threads());
}
static void refuse_unasked_exact_attention(const AttentionUse& /*use*/, int64_t /*longest*/) {}

void attention_forward(const AttentionForward& problem) {
  const AttentionShape& shape = problem.shape;
  const DType dtype = problem.output.dtype();
  check_workspace(shape, problem.workspace);
  with_storage_type(dtype, [&]<class T>(T) {
    attention::forward<T>(problem, aligned_base(problem.workspace), floats_a_thread(shape));
  });
}

void attention_backward(const AttentionBackward& problem) {
  const AttentionShape& shape = problem.shape;
  const DType dtype = problem.grad_qkv.dtype();
  check_workspace(shape, problem.workspace);
  with_storage_type(dtype, [&]<class T>(T) {
    attention::backward<T>(problem, aligned_base(problem.workspace), floats_a_thread(shape));
  });
}

}  // namespace cpu

int64_t attention_workspace_floats(const AttentionUse& use, DeviceKind device) {
  if (device == DeviceKind::cuda && described_gpu()) return cuda::exact_attention::workspace_floats(use.shape);
  return NIBBLE_DISPATCH(device, attention_workspace_floats, use);
}

void refuse_unasked_exact_attention(const AttentionUse& use, int64_t longest, DeviceKind device) {
  NIBBLE_DISPATCH(device, refuse_unasked_exact_attention, use, longest);
}

void attention_forward(const AttentionForward& problem) {
  const ProfileScope scope(OperatorFamily::attention, "attention_forward");
  check(problem);
  NIBBLE_DISPATCH(problem.output.device(), attention_forward, problem);
}

void attention_backward(const AttentionBackward& problem) {
  const ProfileScope scope(OperatorFamily::attention, "attention_backward");
  check(problem);
  NIBBLE_DISPATCH(problem.grad_qkv.device(), attention_backward, problem);
}

}  // namespace nibble
