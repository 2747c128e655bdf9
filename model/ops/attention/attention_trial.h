// The trial of an attention plan before a run trusts it: it computes pseudo-random problems of the real shape twice,
// which must give the same bits, and the exact kernels compute one sequence and one head of keys and values with the
// query heads that read it, to which the results must be near. Internal to attention.
#pragma once

#include <functional>
#include <initializer_list>
#include <string>
#include <vector>

#include "dist/device/arena.h"
#include "model/ops/attention/attention_library.h"

namespace nibble::cuda {

class AttentionTrial {
 public:
  // Takes memory of the GPU for the tensors of both passes. Throws ExitCode::out_of_memory if it has not as much.
  explicit AttentionTrial(const AttentionShape& shape);

  // Runs a plan of the pass. Returns what is wrong with it, or an empty text. The backward pass reads the results of
  // the last forward pass, which comes first. Waits for the GPU.
  std::string run(const AttentionPlan& plan, AttentionPass pass);

 private:
  // What the exact kernels compute too: [heads][sequence_length * head_dim].
  using Heads = std::vector<std::vector<float>>;
  struct Part {
    Heads output;    // of the query heads
    Heads gradient;  // of the query heads, the key and the value
    std::vector<float> log_sum_exp;
  };

  void compute_exact_part();
  Tensor last_sequence(const Tensor& tensor) const;  // of [tokens, ...]
  std::string distance_of_forward() const;
  std::string distance_of_backward() const;
  // Runs twice on results and a workspace that hold something else before. Returns whether the bits are the same.
  static bool same_bits_twice(const std::function<void(const Tensor& workspace)>& run, int64_t workspace_floats,
                              std::initializer_list<Tensor> results);

  AttentionShape shape_;
  Arena arena_;
  Tensor qkv_, output_, log_sum_exp_, grad_output_, grad_qkv_, document_starts_;
  AttentionShape part_shape_;
  Part exact_;
};

}  // namespace nibble::cuda
