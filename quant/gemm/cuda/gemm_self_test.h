// Whether a library's block-scaled products are what they should be on this very device: known answers, once a process.
// They find what no status reports: scales in another order than quant/format/swizzle.h, a tensor scale that is
// ignored, nibbles the wrong way round, a product that is not added, sums that change from run to run.
#pragma once

#include <string>
#include <vector>

#include "quant/recipe/operand_spec.h"

namespace nibble::cuda {

class GemmBackend;

struct ProbeResult {
  std::string provider;  // "cuBLASLt 13.1.0"
  std::string format;    // "nvfp4"
  std::string probe;     // "one scale of 2 among ones"
  bool passed = false;
  std::string finding;  // what was wrong; empty where nothing was
};

// All probes of every native path for block-scaled formats that this device and its libraries have; none where there is
// none. Waits for the device.
std::vector<ProbeResult> run_gemm_self_test();

// Whether nvfp4 products run natively and passed. The first call runs the probes.
bool native_gemm_is_sound();

// The same for products of two operands of a format by one provider that does not refuse them; a failure is logged
// once.
bool is_sound(GemmBackend& backend, Format format);

// For tests: the next question runs the probes anew.
void forget_gemm_self_test();

}  // namespace nibble::cuda
