// The interface of a GEMM backend on a GPU; quant/gemm/gemm_backend_kind.h lists the backends. Internal to quant, and
// to tests. Implemented in exact_gemm.cu, cublaslt_gemm.cu, cudnn/cudnn_gemm.cu and emulated_gemm.cu.
#pragma once

#include <cstdint>
#include <string>

#include "quant/gemm/gemm_problem.h"

namespace nibble::cuda {

// Whether an algorithm of a library is tried when it is first used for a shape (quant/gemm/cuda/library_gemm.h).
enum class Trial : uint8_t { none, first_use };

class GemmBackend {
 public:
  virtual ~GemmBackend() = default;
  // Returns why the backend cannot multiply such operands on this device; empty: it can. A shape of 0 x 0 x 0 asks for
  // any shape.
  virtual std::string refusal(const GemmShape& shape) = 0;
  virtual size_t scratch_bytes(const GemmShape& /*shape*/) { return 0; }
  // Puts the GEMM on the compute stream. Returns false where the library refuses after all, or where no algorithm of it
  // passes the trial; the output is then as it was.
  virtual bool multiply(const GemmProblem& problem, Trial trial) = 0;
  // Returns a description such as "cuBLASLt 13.1.0".
  virtual std::string description() = 0;
  // Returns how the GEMM is multiplied, such as "native, algorithm 66".
  virtual std::string algorithm(const GemmProblem& problem) = 0;
};

GemmBackend& exact_gemm();
GemmBackend& cublaslt_gemm();
GemmBackend& cudnn_gemm();
GemmBackend& emulated_gemm();

}  // namespace nibble::cuda
