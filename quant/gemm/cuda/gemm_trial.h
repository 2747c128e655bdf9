// The trial of an algorithm of a library when a process first uses it for a shape: on the real operands the first and
// the last tile of the output are compared with the exact product (quant/gemm/gemm_check.h), and a second run must give
// the same bits. Internal to quant; only in builds with CUDA.
#pragma once

#include <functional>
#include <string>

#include "quant/gemm/gemm_check.h"

namespace nibble::cuda {

struct GemmTrial {
  const GemmProblem& problem;
  GemmTile part;              // what run() computes of the output
  void* workspace = nullptr;  // on the device, 8 bytes or more, which run() may use too
};

// Calls run() twice. Returns what is wrong with the result; empty: nothing is, and the output has it. Else the output
// of a problem that accumulates is as it was. Waits for the device.
std::string fault_in_trial(const GemmTrial& trial, const std::function<void()>& run);

}  // namespace nibble::cuda
