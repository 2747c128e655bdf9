// The norm of the whole gradient from the parts of all ranks. It has the same bits on every rank, for any number of
// ranks and any placement that respects grains: a tensor is cut into blocks of 4096 elements, counted from the start of
// each of its units (dist/zero/layout.h). Squares are summed in double inside blocks; the blocks of a tensor are added
// in a binary tree, like the groups of a step (dist/zero/tree_reduction.h), and so are the tensors.
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
// device; its squares are summed there. Ranks exchange the sums of at most about 2 log2(blocks) nodes of each slice.
GradientNorm gradient_norm(Communicator& communicator, const Placement& owned, const Tensor& shard);

// Returns the factor that reduces a gradient of this norm to max_norm; 1 if the norm is smaller already, or if max_norm
// is 0 (no clipping).
float clip_scale(double norm, double max_norm);

// Sums of squares of blocks of a shard, in double, on the CPU: sums[i] is that of elements blocks[i], at most
// norm_block of them from a multiple of 4 on. Lane j of 16 takes elements j, j + 16, ... of a block; the lanes are
// added in a fixed tree.
struct SquareSums {
  Tensor shard;  // f32
  std::span<const Range> blocks;
  std::span<double> sums;
};
namespace cuda {
void sum_squares(const SquareSums& problem);
}

}  // namespace nibble
