// The norm of the whole gradient from the shards of all ranks: the same bits on every rank and for any number of ranks,
// because squares are summed in double inside the fixed blocks of Partition and then over the blocks in order.
#pragma once

#include <span>

#include "dist/communicator.h"
#include "dist/partition.h"

namespace nibble {

struct GradientNorm {
  double norm = 0;
  bool finite = true;  // no NaN and no infinity in any rank's shard; otherwise norm is not a number or infinite
};

// Collective. shard: this rank's part of the gradient, [partition.count(rank)].
GradientNorm gradient_norm(Communicator& communicator, const Partition& partition, std::span<const float> shard);

// Factor that brings a gradient of this norm down to max_norm; 1 where it is smaller already, and for max_norm 0 (no
// clipping).
float clip_scale(double norm, double max_norm);

}  // namespace nibble
