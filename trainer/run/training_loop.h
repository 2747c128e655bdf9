// The loop over the steps of a run. It decides when to train, validate, checkpoint, report and stop.
#pragma once

#include <optional>

#include "dist/base/error.h"
#include "dist/ranks/communicator.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/directory/run_directory.h"
#include "trainer/run/training_session.h"

namespace nibble {

// Collective. Trains until train.steps, train.stop_at, train.max_minutes or a request to stop (dist/base/signals.h).
// With a checkpoint the run continues after its step. Without one it starts with fresh weights and writes the
// checkpoint of step 0 first, so that a run that has started can always be resumed. Returns ok when the run is
// complete, and start_again when it stopped earlier with a checkpoint. Throws ExitCode::numerics when more steps were
// skipped, because they were not finite, than guard.* allows.
ExitCode run_training(Communicator& communicator, TrainingSession& session, const RunDirectory& directory,
                      const std::optional<CheckpointInfo>& checkpoint);

}  // namespace nibble
