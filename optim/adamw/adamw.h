// AdamW (Loshchilov, Hutter 2019, arXiv 1711.05101) on this rank's shard of flat parameter buffers.
//
// For each element, in FP32 and in this order of operations (c1 = 1 - beta1, c2 = 1 - beta2, rounded to FP32 once):
//   g = gradient * grad_scale;  m = beta1 m + c1 g;  v = beta2 v + c2 (g g)
//   w = w - (rate * ((m * correction1) / (sqrt(v * correction2) + epsilon)) + (rate * weight_decay) * w)
// with correction_i = 1 / (1 - beta_i^(step+1)) from double arithmetic, and the decay term only where a segment asks
// for it. What is stored in BF16 (weights without FP32 masters, moments if chosen) is rounded stochastically with 16
// random bits an element: element i of a tensor takes 16-bit half i % 8 (low half of a word first) of block i / 8 of
// the stream {seed, step, micro_batch 0, tensor_id, purpose}. So the result depends neither on ranks nor on threads.
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
  // Where BF16 weights are kept between steps: in themselves (bf16), or in an FP32 copy that they are rounded from, to
  // nearest even (f32). FP32 weights are their own master whatever this says.
  DType master_dtype = DType::bf16;
  DType moment_dtype = DType::f32;  // f32 or bf16
  // The state stays in memory of the CPU and is updated there, while weights and gradients are on a GPU. The same bits.
  // Says nothing where the weights are on the CPU.
  bool offload = false;
};

// Throws ExitCode::bad_config for betas outside [0, 1), an epsilon that is not positive, a negative decay, or dtypes
// other than f32 and bf16.
void validate(const AdamWConfig& config);

struct AdamWProblem;

// State that a checkpoint keeps: "adam_m", "adam_v" and, with FP32 masters of BF16 weights, "master".
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

  // Owns elements [begin, end) of the flat buffers; begin is a multiple of 8. The state's memory comes from the arena.
  // weights_dtype: of the flat weights, f32 or bf16. The arena is on the device of the weights, or, with offload, on
  // the CPU.
  AdamW(Arena& arena, const AdamWConfig& config, std::vector<ParameterSegment> segments, uint64_t begin, uint64_t end,
        DType weights_dtype);

  // Sets the shard (masters and weights) to these values, rounded to nearest even where stored in BF16. values:
  // [end - begin], on the CPU; weights: the whole flat buffer, on any device.
  void set_weights(std::span<const float> values, const Tensor& weights);

  // The shard as the next update finds it (masters where there are some), as set_weights() takes it. values: [end -
  // begin].
  void read_weights(std::span<float> values, const Tensor& weights) const;

  // Updates the shard of `weights`, the whole flat buffer. gradients: f32 [end - begin], all finite, on the device of
  // the weights; both begin at multiples of 16 bytes.
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
