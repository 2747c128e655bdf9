// The norm of the whole gradient from the shards of all ranks. It has the same bits on every rank and for any number of
// ranks, because squares are summed in double inside blocks of norm_block elements and then over the blocks in order.
#pragma once

#include <span>

#include "dist/ranks/communicator.h"
#include "dist/zero/placement.h"
#include "quant/tensor/tensor.h"

namespace nibble {

struct GradientNorm {
  double norm = 0;
  bool finite = true;  // no rank's shard has a NaN or an infinity; if false, norm is NaN or infinite
};

constexpr uint64_t norm_block = 4096;  // elements

// Collective, over communicator.host(). `shard` is this rank's part of the gradient, f32 [owned.elements(rank)], on any
// device; its squares are summed there.
GradientNorm gradient_norm(Communicator& communicator, const Placement& owned, const Tensor& shard);

// Returns the factor that reduces a gradient of this norm to max_norm; 1 if the norm is smaller already, or if max_norm
// is 0 (no clipping).
float clip_scale(double norm, double max_norm);

// Sums of squares of a shard: sums[i] is the sum over elements [i * norm_block, ...), in double, on the CPU. Lane
// j of 16 takes elements j, j + 16, ... of a block; the lanes are added in a fixed tree.
struct SquareSums {
  Tensor shard;  // f32
  std::span<double> sums;
};
namespace cuda {
void sum_squares(const SquareSums& problem);
}

}  // namespace nibble
