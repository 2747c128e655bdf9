// Problems of attention, and their results in one precision, for the tests of attention.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "model/ops/attention/attention.h"
#include "model/ops_support.h"

namespace nibble::test {

using reference::Attention;

struct Problem {
  Attention attention;
  double bound = 1;               // of queries and keys
  Values given_grad_output = {};  // instead of random numbers

  AttentionShape shape() const {
    return {static_cast<int64_t>(attention.sequences),   static_cast<int64_t>(attention.length),
            static_cast<int64_t>(attention.query_heads), static_cast<int64_t>(attention.kv_heads),
            static_cast<int64_t>(attention.head_dim),    !attention.document_starts.empty()};
  }
  size_t outputs() const { return attention.sequences * attention.length * attention.query_heads * attention.head_dim; }
  Values qkv() const { return random_values(1, attention.sequences * attention.length * attention.width(), bound); }
  Values grad_output() const { return given_grad_output.empty() ? random_values(2, outputs()) : given_grad_output; }
};

// Returns the starts of documents of these lengths, repeated along some sequences; a document that would reach into the
// next sequence begins anew there.
inline std::vector<int32_t> packed(size_t sequences, size_t length, const std::vector<size_t>& documents) {
  std::vector<int32_t> starts;
  size_t document = 0;
  size_t left = documents[0];
  for (size_t token = 0; token < sequences * length; ++token) {
    const size_t position = token % length;
    if (left == 0) left = documents[++document % documents.size()];
    const bool begins = position == 0 || left == documents[document % documents.size()];
    starts.push_back(begins ? static_cast<int32_t>(position) : starts.back());
    --left;
  }
  return starts;
}

template <class T>
struct Result {
  std::vector<T> output, grad_qkv;
  std::vector<float> log_sum_exp;
};

template <class T>
Result<T> run(const Problem& problem, const Values& qkv_values) {
  const AttentionShape shape = problem.shape();
  auto qkv = stored<T>(qkv_values);
  auto grad_output = stored<T>(problem.grad_output());
  std::vector<int32_t> document_starts = problem.attention.document_starts;
  const Tensor starts_view = document_starts.empty() ? Tensor() : view(document_starts, {shape.tokens()});
  Result<T> result;
  result.output.resize(problem.outputs());
  result.grad_qkv.resize(qkv.size());
  result.log_sum_exp.resize(static_cast<size_t>(shape.tokens() * shape.query_heads));
  const int64_t floats = cpu::attention_workspace_floats(shape, compute_threads());
  std::vector<float> workspace(static_cast<size_t>(floats), std::nanf(""));  // old contents must not matter
  const Tensor qkv_view = view(qkv, {shape.tokens(), shape.qkv_features()});
  const Tensor output = view(result.output, {shape.tokens(), shape.output_features()});
  const Tensor log_sum_exp = view(result.log_sum_exp, {shape.sequences, shape.query_heads, shape.sequence_length});
  attention_forward({shape, qkv_view, output, log_sum_exp, view(workspace, {floats}), starts_view});
  attention_backward({shape, view(grad_output, {shape.tokens(), shape.output_features()}), qkv_view, output,
                      log_sum_exp, view(result.grad_qkv, {shape.tokens(), shape.qkv_features()}),
                      view(workspace, {floats}), starts_view});
  return result;
}

inline const std::vector<Problem>& problems() {
  static const std::vector<Problem> all = {
      {{1, 1, 1, 1, 2}},
      {{2, 3, 2, 1, 4}},
      {{1, 64, 2, 2, 16}},
      {{1, 65, 3, 1, 8}},
      {{2, 130, 4, 2, 16}},
      {{1, 200, 2, 1, 64}},
      {{3, 17, 6, 3, 10}},
      {{1, 96, 2, 1, 16}, 5},
      {{1, 331, 2, 1, 40}},
      // Documents begin inside blocks and with them, and have one token up to several blocks.
      {{2, 130, 4, 2, 16, packed(2, 130, {1, 40, 7, 82})}},
      {{1, 331, 2, 1, 40, packed(1, 331, {64, 3, 130, 61})}},
      {{3, 17, 6, 3, 10, packed(3, 17, {5, 1, 1})}},
      {{1, 96, 2, 1, 16, packed(1, 96, {30})}, 5},
      {{1, 600, 2, 1, 8, packed(1, 600, {310, 5})}},
  };
  return all;
}

template <class T>
std::string bytes_of_run(const Problem& problem, const Values& qkv) {
  const auto result = run<T>(problem, qkv);
  return bytes_of(result.output) + bytes_of(result.grad_qkv) + bytes_of(result.log_sum_exp);
}

template <class T>
std::string bytes_of_run(const Problem& problem) {
  return bytes_of_run<T>(problem, problem.qkv());
}

}  // namespace nibble::test
