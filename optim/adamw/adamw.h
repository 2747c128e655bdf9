// AdamW (Loshchilov, Hutter 2019, arXiv 1711.05101).
//
// Each element is updated in FP32 and in this order of operations (c1 = 1 - beta1, c2 = 1 - beta2, rounded to FP32
// once):
//   g = gradient * grad_scale;  m = beta1 m + c1 g;  v = beta2 v + c2 (g g)
//   w = w - (rate * ((m * correction1) / (sqrt(v * correction2) + epsilon)) + (rate * weight_decay) * w)
// with correction_i = 1 / (1 - beta_i^(step+1)) from double arithmetic, and the decay term only if the tensor asks for
// it. Values stored in BF16 (weights without FP32 masters, moments if chosen) are rounded stochastically with 16 random
// bits an element: element i of a matrix takes 16-bit half i % 8 (low half of a word first) of block i / 8 of the
// stream {seed, step, micro_batch 0, tensor_id, purpose}. The result therefore depends neither on ranks nor on threads.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "dist/device/arena.h"
#include "optim/optimizer.h"
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

class AdamW final : public Optimizer {
 public:
  explicit AdamW(const AdamWConfig& config);

  std::string_view name() const override { return "adamw"; }
  bool takes(const TensorLayout& tensor) const override { return tensor.trained; }
  // The arena is on the device of the weights, or on the CPU with offload.
  void allocate(Arena& arena, const Layout& layout, std::vector<OwnedSlice> slices) override;
  void set_weights(std::span<const float> values, const Tensor& weights) override;
  void read_weights(std::span<float> values, const Tensor& weights) const override;
  void update(const UpdateStep& step, const Shard& shard, Range gradient) override;
  // Returns "adam_m", "adam_v" and, for BF16 weights with FP32 masters, "master".
  std::vector<StateArray> state() const override;

 private:
  bool has_master(const OwnedSlice& slice) const;

  AdamWConfig config_;
  const Layout* layout_ = nullptr;
  std::vector<OwnedSlice> slices_;
  Tensor first_moment_;   // [elements of the state]
  Tensor second_moment_;  // [elements of the state]
  Tensor master_;         // f32 [elements of the state], or empty
};

}  // namespace nibble
