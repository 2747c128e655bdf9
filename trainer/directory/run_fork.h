// A fork of a run: another run directory that begins with a checkpoint of the first, and with its past.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

#include "trainer/checkpoint/checkpoint_content.h"

namespace nibble {

// Makes `target`, a directory that must not exist, a run that goes on from the checkpoint of `step` in the run
// directory `source`, or from its newest valid one. It gets a copy of the checkpoint, whose bytes are compared with the
// manifest's hashes, the checkpoint's configuration with its own run.dir, the metrics up to the step, the plan of
// GEMMs, and a journal that begins with the fork; it appears by a rename when all is on the disk. The source is only
// read, and a run may train there. Returns the checkpoint that was copied. Throws what find_checkpoint() and
// find_checkpoint_of_step() throw; ExitCode::cannot_create if `target` exists or cannot be made; missing_input if the
// run removes the checkpoint meanwhile; and io.
CheckpointInfo fork_run(const std::filesystem::path& source, std::optional<uint64_t> step,
                        const std::filesystem::path& target);

}  // namespace nibble
