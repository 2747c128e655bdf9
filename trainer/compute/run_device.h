// Where a run computes, by its configuration.
#pragma once

#include <string>
#include <vector>

#include "dist/device/dispatch.h"
#include "dist/ranks/communicator.h"
#include "trainer/config/run_config.h"

namespace nibble {

// As dist/device/device.h resolves it.
DeviceKind device_of(const RunConfig& config);

// Before any memory is taken; may throw on some ranks only. On a GPU: binds this process to that of its number among
// the ranks of its machine, and says which libraries multiply.
void use_device(const Communicator& communicator, const RunConfig& config);

// The GPU and what multiplies there, a line each; nothing on the CPU.
std::vector<std::string> describe_device(const RunConfig& config);

// Of this rank: what MFU is a share of. On the CPU measured (trainer/compute/measured_peak.h), on a GPU by its data
// sheet; 0 where that is not known.
double peak_flops(const RunConfig& config);

// The algorithms of libraries' products that this process has chosen, as a text, and chosen by an earlier one: a run
// that continues has the bits of the one before. Empty on the CPU, which chooses nothing.
std::string product_plan(const RunConfig& config);
void use_product_plan(const RunConfig& config, const std::string& plan);

namespace cuda {
std::string product_plan();
void use_product_plan(const std::string& plan);
double peak_flops();
void use_gpu(int rank_on_machine, const RunConfig& config);
std::vector<std::string> describe_device(const RunConfig& config);
}  // namespace cuda

}  // namespace nibble
