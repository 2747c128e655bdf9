#include "model/ops/embedding.h"

#include <algorithm>
#include <cstring>

#include "dist/base/vectorize.h"
#include "dist/device/dispatch.h"
#include "dist/device/profile.h"
#include "dist/device/thread_pool.h"
#include "model/ops/row/storage.h"

namespace nibble {
namespace {

template <class T>
NIBBLE_VECTORIZE void accumulate(const T* __restrict row, float* __restrict sum, size_t count) {
  for (size_t i = 0; i < count; ++i) sum[i] += to_float(row[i]);
}

void check_tokens(const Tensor& tokens, int64_t vocab) {
  const int32_t* ids = tokens.as<int32_t>();
  for (int64_t i = 0; i < tokens.elements(); ++i) {
    NIBBLE_CHECK(0 <= ids[i] && ids[i] < vocab, "token outside the vocabulary");
  }
}

}  // namespace

namespace cpu {

void embedding_forward(const EmbeddingForward& problem) {
  const int64_t count = problem.tokens.elements();
  check_tokens(problem.tokens, problem.weight.size(0));
  const int32_t* tokens = problem.tokens.as<int32_t>();
  const std::byte* weight = static_cast<const std::byte*>(problem.weight.data());
  std::byte* output = static_cast<std::byte*>(problem.output.data());
  const size_t row_bytes = static_cast<size_t>(problem.weight.cols()) * size_of(problem.weight.dtype());
  constexpr size_t token_grain = 64;
  parallel_for(static_cast<size_t>(count), token_grain, [=](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      std::memcpy(output + i * row_bytes, weight + static_cast<size_t>(tokens[i]) * row_bytes, row_bytes);
    }
  });
}

// A task owns a range of columns and takes every token in order, so the sum of a row does not depend on the number of
// threads.
void embedding_backward(const EmbeddingBackward& problem) {
  const int64_t count = problem.tokens.elements();
  check_tokens(problem.tokens, problem.grad_weight.size(0));
  with_storage_type(problem.grad_output.dtype(), [&]<class T>(T) {
    const int32_t* tokens = problem.tokens.as<int32_t>();
    const T* grad_output = problem.grad_output.as<T>();
    float* grad_weight = problem.grad_weight.as<float>();
    const size_t features = static_cast<size_t>(problem.grad_weight.cols());
    constexpr size_t column_grain = 64;
    parallel_for(features, column_grain, [=](size_t begin, size_t end) {
      for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
        float* sum = grad_weight + static_cast<size_t>(tokens[i]) * features + begin;
        accumulate(grad_output + i * features + begin, sum, end - begin);
      }
    });
  });
}

}  // namespace cpu

void embedding_forward(const EmbeddingForward& problem) {
  const ProfileScope scope(OperatorFamily::embedding, "embedding_forward");
  NIBBLE_CHECK(problem.weight.rank() == 2, "embedding weight is [vocab, features]");
  check_matrix(problem.output, problem.weight.dtype(), problem.tokens.elements(), problem.weight.cols());
  NIBBLE_DISPATCH(problem.output.device(), embedding_forward, problem);
}

void embedding_backward(const EmbeddingBackward& problem) {
  const ProfileScope scope(OperatorFamily::embedding, "embedding_backward");
  NIBBLE_CHECK(problem.grad_weight.rank() == 2 && problem.grad_weight.dtype() == DType::f32,
               "embedding gradient is f32 [vocab, features]");
  check_matrix(problem.grad_output, problem.grad_output.dtype(), problem.tokens.elements(), problem.grad_weight.cols());
  NIBBLE_DISPATCH(problem.grad_weight.device(), embedding_backward, problem);
}

}  // namespace nibble
