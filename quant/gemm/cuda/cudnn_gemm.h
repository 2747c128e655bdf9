// nvfp4 GEMMs as graphs of cuDNN: what cudnn/cudnn_gemm.cu (or, without cuDNN's headers, stub/cudnn_gemm.cu) offers
// beside the backend cudnn_gemm(). Internal to quant, and to the test that asks cuDNN about GPUs that the machine does
// not have.
#pragma once

#include <cstdint>
#include <string>

#include "quant/format/dtype.h"

namespace nibble::cuda {

struct CudnnGemmShape {
  int64_t m = 0, n = 0, k = 0;
  DType output = DType::f32;
  bool accumulate = false;
};

// Returns how many engine configurations cuDNN proposes for the GEMM on the GPU that `device_json` describes; 0: it
// refuses.
int64_t cudnn_gemm_configurations(const CudnnGemmShape& shape, const std::string& device_json);

}  // namespace nibble::cuda
