// The loop over the steps of a run. It decides when to train, validate, checkpoint, report and stop.
#pragma once

#include <cstdint>
#include <optional>

#include "dist/base/error.h"
#include "dist/ranks/communicator.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/directory/run_directory.h"
#include "trainer/run/training_session.h"

namespace nibble {

// Says what becomes of the checkpoints of the run that are later than the one from which it goes on: they are left, or
// set aside (abandon_checkpoints_after()) once nothing more can keep the run from going on.
enum class LaterCheckpoints : uint8_t { leave, abandon };

// Collective. Trains until train.steps, train.stop_at, train.max_minutes or a request to stop (dist/base/signals.h).
// With a checkpoint the run continues after its step. Without one it starts with fresh weights and writes the
// checkpoint of step 0 first, so that a run that has started can always be resumed. Returns ok when the run is
// complete, and start_again when it stopped earlier with a checkpoint. Throws ExitCode::numerics when more steps were
// skipped, because they were not finite, than guard.* allows.
ExitCode run_training(Communicator& communicator, TrainingSession& session, const RunDirectory& directory,
                      const std::optional<CheckpointInfo>& checkpoint,
                      LaterCheckpoints later = LaterCheckpoints::leave);

}  // namespace nibble
