// The journal of a run, journal.jsonl in its directory: one JSON object a line for every start and resume, with the
// versions and machines that computed, and for every key of the configuration that a resume changed. Lines are appended
// and on the disk before the run goes on, and none is ever changed (docs/formats.md, "Journal").
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "dist/ranks/communicator.h"
#include "trainer/checkpoint/checkpoint_content.h"
#include "trainer/config/run_config.h"

namespace nibble {

// Collective. A run starts in `directory`.
void record_start(Communicator& communicator, const std::filesystem::path& directory, const RunConfig& config);
// Collective. A run goes on from a checkpoint, with these differences from the checkpoint's configuration.
void record_resume(Communicator& communicator, const std::filesystem::path& directory, const RunConfig& config,
                   const CheckpointInfo& checkpoint, const std::vector<ConfigDifference>& overrides);

// Returns whether the journal knows how the run was started; older versions kept none.
bool journal_has_start(const std::filesystem::path& directory);

}  // namespace nibble
