// cuBLASLt: opened when first asked for, so that nibble runs where it is not installed. Internal to quant; builds with
// CUDA only.
#pragma once

#include <cublasLt.h>

#include <cstddef>
#include <string>

namespace nibble::cuda {

// The functions that nibble calls, and what is made once for all products.
struct CublasLt {
  decltype(&cublasLtGetVersion) get_version;
  decltype(&cublasLtGetStatusString) status_string;
  decltype(&cublasLtCreate) create;
  decltype(&cublasLtMatmulDescCreate) desc_create;
  decltype(&cublasLtMatmulDescDestroy) desc_destroy;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set;
  decltype(&cublasLtMatrixLayoutCreate) layout_create;
  decltype(&cublasLtMatrixLayoutDestroy) layout_destroy;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic;
  decltype(&cublasLtMatmulAlgoCheck) algo_check;
  decltype(&cublasLtMatmulAlgoConfigGetAttribute) algo_attribute;
  decltype(&cublasLtMatmul) matmul;

  cublasLtHandle_t handle;
  void* workspace;  // workspace_bytes, aligned to 256, of the products on the compute stream only
};
constexpr size_t cublaslt_workspace_bytes = size_t{64} << 20;

// Null where there is none, or where it does not work with the device; cublaslt_absence() tells why. Allocates and
// launches at the first call.
const CublasLt* cublaslt();
const std::string& cublaslt_absence();

// 130100; 0: absent.
size_t cublaslt_version();
// 130100 -> "13.1.0"
std::string name_of_cublaslt_version(size_t version);
// What a version is known to do wrong with NVFP4; empty: nothing. 12.8 mixes up entries of its heuristic cache; 13.4.0
// may ignore the scale of the whole tensor.
std::string known_nvfp4_fault(size_t version);

// Throws ExitCode::internal, naming the function.
void check(const CublasLt& library, cublasStatus_t status, const char* function);

}  // namespace nibble::cuda
