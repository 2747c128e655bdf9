// The configuration of a run as TensorBoard shows it: as text, and as hyperparameters (the tab HPARAMS), so that runs
// can be sorted and filtered by the keys in which they differ.
#pragma once

#include <cstdint>

#include "trainer/config/run_config.h"
#include "trainer/record/tensorboard.h"

namespace nibble {

void write_configuration(TensorboardWriter& writer, const RunConfig& config, uint64_t step);

}  // namespace nibble
