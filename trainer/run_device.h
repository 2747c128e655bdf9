// Where a run computes, by its configuration.
#pragma once

#include <string>
#include <vector>

#include "dist/communicator.h"
#include "dist/dispatch.h"
#include "trainer/run_config.h"

namespace nibble {

// As dist/device.h resolves it.
DeviceKind device_of(const RunConfig& config);

// Before any memory is taken; may throw on some ranks only. On a GPU: binds this process to that of its number among
// the ranks of its machine, and says which libraries multiply.
void use_device(const Communicator& communicator, const RunConfig& config);

// The GPU and what multiplies there, a line each; nothing on the CPU.
std::vector<std::string> describe_device(const RunConfig& config);

namespace cuda {
std::vector<std::string> describe_device(const RunConfig& config);
}  // namespace cuda

}  // namespace nibble
