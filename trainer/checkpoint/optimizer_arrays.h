// The state of a run's optimizers (optim/optimizer.h) as arrays of its checkpoints.
#pragma once

#include <vector>

#include "optim/optimizer.h"
#include "trainer/checkpoint/checkpoint_content.h"

namespace nibble {

// Returns the arrays of all optimizers: the same on every rank, but for values and slices.
std::vector<CheckpointArray> optimizer_arrays(const OptimizerList& optimizers, const Layout& layout);
// Returns their names, and the names of their arrays.
std::vector<OptimizerInfo> optimizer_infos(const OptimizerList& optimizers);

}  // namespace nibble
