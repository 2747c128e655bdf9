#include "model/ops/loss/cross_entropy.h"

#include "dist/base/vectorize.h"
#include "dist/device/dispatch.h"
#include "dist/device/profile.h"
#include "dist/device/thread_pool.h"
#include "model/ops/row/row_math.h"
#include "model/ops/row/storage.h"
#include "quant/tensor/tensor_copy.h"

namespace nibble {
namespace {

constexpr size_t token_grain = 4;

struct RowLoss {
  float sum;  // sum of exp(logit - largest logit)
  float loss;
};

// Replaces the logits by exp(logit - largest logit).
NIBBLE_VECTORIZE RowLoss row_loss(float* logits, size_t vocab, int32_t target) {
  const float largest = row_maximum(logits, vocab);
  const float distance = largest - logits[target];
  const float sum = replace_by_exponentials(logits, largest, vocab);
  return {sum, log_f32(sum) + distance};
}

// Scales the exponentials of a row. `gradient` may be the memory of the exponentials.
template <class T>
NIBBLE_VECTORIZE void scale_row(const float* exponentials, float factor, T* gradient, size_t vocab) {
#pragma GCC ivdep
  for (size_t i = 0; i < vocab; ++i) store(gradient[i], factor * exponentials[i]);
}

template <class T>
void row_gradient(const float* exponentials, size_t vocab, int32_t target, float sum, float scale, T* gradient) {
  const float probability = exponentials[target] / sum;
  scale_row(exponentials, scale / sum, gradient, vocab);
  store(gradient[target], scale * (probability - 1.0f));
}

void check(const CrossEntropy& problem) {
  const int64_t tokens = problem.targets.elements();
  const int64_t vocab = problem.logits.cols();
  check_matrix(problem.logits, DType::f32, tokens, vocab);
  check_vector(problem.targets, DType::i32, tokens);
  check_vector(problem.losses, DType::f32, tokens);
  if (!problem.grad_logits.empty()) check_matrix(problem.grad_logits, problem.grad_logits.dtype(), tokens, vocab);
}

void check_targets(const CrossEntropy& problem) {
  const int32_t* targets = problem.targets.as<int32_t>();
  for (int64_t i = 0; i < problem.targets.elements(); ++i) {
    NIBBLE_CHECK(0 <= targets[i] && targets[i] < problem.logits.cols(), "target outside the vocabulary");
  }
}

}  // namespace

namespace cpu {

void cross_entropy(const CrossEntropy& problem) {
  const int64_t tokens = problem.targets.elements();
  const size_t vocab = static_cast<size_t>(problem.logits.cols());
  check_targets(problem);
  float* logits = problem.logits.as<float>();
  const int32_t* targets = problem.targets.as<int32_t>();
  float* losses = problem.losses.as<float>();
  const size_t count = static_cast<size_t>(tokens);
  if (problem.grad_logits.empty()) {
    parallel_for(count, token_grain, [=](size_t begin, size_t end) {
      for (size_t i = begin; i < end; ++i) losses[i] = row_loss(logits + i * vocab, vocab, targets[i]).loss;
    });
  } else {
    with_storage_type(problem.grad_logits.dtype(), [&]<class T>(T) {
      T* gradient = problem.grad_logits.as<T>();
      const float scale = problem.scale;
      parallel_for(count, token_grain, [=](size_t begin, size_t end) {
        for (size_t i = begin; i < end; ++i) {
          float* row = logits + i * vocab;
          const RowLoss result = row_loss(row, vocab, targets[i]);
          losses[i] = result.loss;
          row_gradient(row, vocab, targets[i], result.sum, scale, gradient + i * vocab);
        }
      });
    });
  }
}

}  // namespace cpu

void cross_entropy(const CrossEntropy& problem) {
  const ProfileScope scope(OperatorFamily::head, "cross_entropy");
  check(problem);
  NIBBLE_DISPATCH(problem.logits.device(), cross_entropy, problem);
}

double sum_of_losses(const Tensor& losses) {
  const HostCopy copy(losses);
  double sum = 0;
  for (const float loss : copy.as<float>()) sum += static_cast<double>(loss);
  return sum;
}

}  // namespace nibble
