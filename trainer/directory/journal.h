// The journal of a run, journal.jsonl in its directory: one JSON object a line for every start, fork and resume, with
// the versions and machines that computed, for every key of the configuration that a resume changed, for what was asked
// of the run while it trained, and for a stop. Lines are
// appended and on the disk before the run goes on, and none is ever changed (docs/formats.md, "Journal").
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "dist/ranks/communicator.h"
#include "trainer/checkpoint/checkpoint_content.h"
#include "trainer/config/run_config.h"

namespace nibble {

// Collective. A run starts in `directory`.
void record_start(Communicator& communicator, const std::filesystem::path& directory, const RunConfig& config);
// A run in `directory` begins as a fork of the run in `source`. `manifest_hash` is that of the checkpoint's
// manifest.json, as xxh128sum prints it. Not collective.
void record_fork(const std::filesystem::path& directory, const std::filesystem::path& source,
                 const CheckpointInfo& checkpoint, const std::string& manifest_hash);
// Collective. A run goes on from a checkpoint, with these differences from the checkpoint's configuration. `abandoned`
// has the steps of the later checkpoints that the user has left by naming this one.
void record_resume(Communicator& communicator, const std::filesystem::path& directory, const RunConfig& config,
                   const CheckpointInfo& checkpoint, const std::vector<ConfigDifference>& overrides,
                   const std::vector<uint64_t>& abandoned);

// A running run has done what a request asked for after a step: `what` has the members of the line. Not collective.
void record_control(const std::filesystem::path& directory, uint64_t step, const nlohmann::json& what);
// The run stops after a step with a checkpoint; `reason` says why. Not collective.
void record_stop(const std::filesystem::path& directory, uint64_t step, const std::string& reason);

// Returns whether the journal knows how the run began, by a start or as a fork; older versions kept none.
bool journal_has_beginning(const std::filesystem::path& directory);

}  // namespace nibble
