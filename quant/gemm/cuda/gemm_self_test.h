// Tests, once a process, whether a library's block-scaled GEMMs give the known answers on this very device. The tests
// find what no status reports: scales in another order than quant/format/swizzle.h, a tensor scale that is ignored,
// nibbles the wrong way round, a result that is not added to the output, sums that change from run to run.
#pragma once

#include <string>
#include <vector>

#include "quant/recipe/operand_spec.h"

namespace nibble::cuda {

class GemmBackend;

struct ProbeResult {
  std::string backend;  // "cuBLASLt 13.1.0"
  std::string format;   // "nvfp4"
  std::string probe;    // "one scale of 2 among ones"
  bool passed = false;
  std::string finding;  // what was wrong; empty if the probe passed
};

// Runs all probes of every native path for block-scaled formats that this device and its libraries have; returns no
// result where there is none. Waits for the device.
std::vector<ProbeResult> run_gemm_self_test();

// Returns whether nvfp4 GEMMs run natively and passed. The first call runs the probes.
bool native_gemm_is_sound();

// Returns whether GEMMs of two operands of a format passed with one backend that does not refuse them; a failure is
// logged once.
bool is_sound(GemmBackend& backend, Format format);

// For tests: makes the next question run the probes anew.
void forget_gemm_self_test();

}  // namespace nibble::cuda
