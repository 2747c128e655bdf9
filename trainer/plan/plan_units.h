// What both forms of a plan say in the same words and numbers.
#pragma once

#include <cstdint>
#include <string>

#include "trainer/plan/run_plan.h"

namespace nibble {

// Returns the member of the JSON for a line of the memory plan: "inputs_of_the_blocks".
std::string key_of(const std::string& what);
// Returns the largest number of checkpoints that are on the disk at once, beside those of checkpoint.keep_every.
uint64_t checkpoints_at_once(const RunConfig& config);
// Returns how the energy was computed, or why it was not.
std::string energy_basis(const RunPlan& plan);

}  // namespace nibble
