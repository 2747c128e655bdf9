// One GEMM by cuBLASLt, its algorithm planned. Internal to quant; only in builds with CUDA.
//
// An algorithm is tried (quant/gemm/cuda/gemm_trial.h) when a process first uses it for a key of the plan. One that
// fails is logged, and the next one that the library proposes is tried.
#pragma once

#include <cstdint>
#include <string>

#include "quant/gemm/cuda/cublaslt_library.h"
#include "quant/gemm/cuda/gemm_plan.h"
#include "quant/gemm/gemm_check.h"
#include "quant/tensor/quantized_tensor.h"
#include "quant/tensor/tensor.h"

namespace nibble::cuda {

// A matrix [rows, inner], or [inner, rows] when transposed (bf16 and f32 only).
struct LibraryOperand {
  const void* values = nullptr;
  cudaDataType_t type = CUDA_R_16BF;
  bool transposed = false;
  int64_t rows = 0;
  int64_t stride = 0;                  // elements from a row of the memory to the next
  const void* block_scales = nullptr;  // swizzled
  cublasLtMatmulMatrixScale_t scale_mode = CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F;
};

struct LibraryGemm {
  LibraryOperand a;  // [m, inner]
  LibraryOperand b;  // [n, inner]
  int64_t inner = 0;
  void* output = nullptr;  // [m, n]
  DType output_dtype = DType::f32;
  int64_t output_stride = 0;
  bool accumulate = false;
  const float* alpha = nullptr;  // on the device
  // The GEMM of which this one computes the part `part` of the output; null: algorithms are not tried.
  const GemmProblem* problem = nullptr;
  GemmTile part = {};
};

// Puts the GEMM on the compute stream. Returns false, and leaves the output as it was, where the library has no
// algorithm for it that passes its trial.
bool multiply(const LibraryGemm& gemm);

// Returns the planned algorithm as a text such as "algorithm 66, tile 24, stages 35".
std::string planned_algorithm(const LibraryGemm& gemm);

}  // namespace nibble::cuda
