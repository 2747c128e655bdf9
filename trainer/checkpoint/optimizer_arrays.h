// The state of a run's optimizers (optim/optimizer.h) as arrays of its checkpoints.
#pragma once

#include <string_view>
#include <vector>

#include "optim/optimizer.h"
#include "trainer/checkpoint/checkpoint_content.h"

namespace nibble {

constexpr std::string_view optimizer_prefix = "optimizer/";

// Returns the arrays of all optimizers: the same on every rank, but for values and slices.
std::vector<CheckpointArray> optimizer_arrays(const OptimizerList& optimizers, const Layout& layout);

}  // namespace nibble
