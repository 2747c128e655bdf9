// AdamW (Loshchilov, Hutter 2019, arXiv 1711.05101) on this rank's shard of flat parameter buffers.
//
// Each element is updated in FP32 and in this order of operations (c1 = 1 - beta1, c2 = 1 - beta2, rounded to FP32
// once):
//   g = gradient * grad_scale;  m = beta1 m + c1 g;  v = beta2 v + c2 (g g)
//   w = w - (rate * ((m * correction1) / (sqrt(v * correction2) + epsilon)) + (rate * weight_decay) * w)
// with correction_i = 1 / (1 - beta_i^(step+1)) from double arithmetic, and the decay term only if the segment asks for
// it. Values stored in BF16 (weights without FP32 masters, moments if chosen) are rounded stochastically with 16 random
// bits an element: element i of a tensor takes 16-bit half i % 8 (low half of a word first) of block i / 8 of the
// stream {seed, step, micro_batch 0, tensor_id, purpose}. The result therefore depends neither on ranks nor on threads.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "dist/device/arena.h"
#include "dist/zero/parameter_segment.h"
#include "quant/format/dtype.h"
#include "quant/tensor/tensor.h"

namespace nibble {

struct AdamWConfig {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0.1;
  // The type that BF16 weights have between steps: bf16 keeps the weights themselves; f32 keeps an FP32 copy, from
  // which the weights are rounded to nearest even. FP32 weights are their own master, whatever this says.
  DType master_dtype = DType::bf16;
  DType moment_dtype = DType::f32;  // f32 or bf16
  // The state stays in memory of the CPU and is updated there, while weights and gradients are on a GPU. The bits are
  // the same. It has no effect if the weights are on the CPU.
  bool offload = false;
};

// Throws ExitCode::bad_config for betas outside [0, 1), an epsilon that is not positive, a negative decay, and dtypes
// other than f32 and bf16.
void validate(const AdamWConfig& config);

struct AdamWProblem;

// State that a checkpoint keeps: "adam_m", "adam_v" and, for BF16 weights with FP32 masters, "master".
struct NamedState {
  std::string name;
  Tensor shard;  // [end - begin]
};

class AdamW {
 public:
  struct Step {
    uint64_t step = 0;  // counted from 0
    double learning_rate = 0;
    float grad_scale = 1;
    uint64_t seed = 0;
  };

  // Owns elements [begin, end) of the flat buffers; `begin` is a multiple of 8. The memory of the state comes from the
  // arena. weights_dtype is the type of the flat weights, f32 or bf16. The arena is on the device of the weights, or on
  // the CPU with offload.
  AdamW(Arena& arena, const AdamWConfig& config, std::vector<ParameterSegment> segments, uint64_t begin, uint64_t end,
        DType weights_dtype);

  // Sets the shard (masters and weights) to these values, rounded to nearest even where BF16 stores them. `values` is
  // [end - begin], on the CPU; `weights` is the whole flat buffer, on any device.
  void set_weights(std::span<const float> values, const Tensor& weights);

  // Returns in `values` [end - begin] the weights that the next update will use (the masters, if there are any). They
  // may be passed to set_weights().
  void read_weights(std::span<float> values, const Tensor& weights) const;

  // Updates the shard of `weights`, which is the whole flat buffer. `gradients` is f32 [end - begin], all finite, on
  // the device of the weights; both begin at multiples of 16 bytes.
  void step(const Step& step, const Tensor& weights, const Tensor& gradients);

  std::vector<NamedState> state() const;

 private:
  Tensor shard_of(const Tensor& weights) const;
  void step_on_cpu(const AdamWProblem& problem) const;

  AdamWConfig config_;
  std::vector<ParameterSegment> segments_;
  uint64_t begin_;
  uint64_t end_;
  DType weights_dtype_;
  Tensor first_moment_;   // [end - begin]
  Tensor second_moment_;  // [end - begin]
  Tensor master_;         // f32 [end - begin], or empty
};

}  // namespace nibble
