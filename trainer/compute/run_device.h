// The device of a run, and the functions that differ between the CPU and GPUs.
#pragma once

#include <string>
#include <vector>

#include "dist/device/device_kind.h"
#include "dist/ranks/communicator.h"
#include "dist/ranks/gpu_choice.h"
#include "trainer/config/run_config.h"

namespace nibble {

// Returns the device that the key `device` names; `auto` is resolved as dist/device/device.h says.
DeviceKind device_of(const RunConfig& config);

// Collective. Prepares the device; call it before any memory is taken. On a GPU it binds this process to the GPU whose
// number among the visible ones is the rank's number within its machine, counted round, and chooses the libraries that
// multiply. Every rank throws ExitCode::bad_config if a rank cannot use its GPU or if two ranks have the same.
void use_device(Communicator& communicator, const RunConfig& config);

// For training; call it before the model is made. Refuses, with ExitCode::bad_config, what must be asked for by name
// (docs/gpu.md, "Slow paths"), now and when GEMMs are planned. Nothing is refused on the CPU.
void refuse_slow_paths(const RunConfig& config);

// Describes the GPU and the libraries that multiply on it, one line each. Returns no lines on the CPU.
std::vector<std::string> describe_device(const RunConfig& config);

// Returns the peak FLOP/s of this rank, the denominator of MFU. It is measured on the CPU
// (trainer/compute/measured_peak.h) and taken from the data sheet on a GPU; 0 if it is not known.
double peak_flops(const RunConfig& config);

// Return and restore the GEMM algorithms of the libraries that this process has chosen, as a text. A resumed run that
// restores the choice of the earlier process computes the same bits. The text is empty on the CPU, which chooses none.
std::string gemm_plan(const RunConfig& config);
void use_gemm_plan(const RunConfig& config, const std::string& plan);

namespace cuda {
std::string gemm_plan();
void use_gemm_plan(const std::string& plan);
double peak_flops();
GpuChoice use_gpu(int rank_on_machine, const RunConfig& config);
void refuse_slow_paths(const RunConfig& config);
std::vector<std::string> describe_device(const RunConfig& config);
}  // namespace cuda

}  // namespace nibble
