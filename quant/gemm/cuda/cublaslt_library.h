// cuBLASLt, which is opened at the first use, so that nibble runs where it is not installed. Internal to quant; only in
// builds with CUDA.
#pragma once

#include <cublasLt.h>

#include <cstddef>
#include <string>

namespace nibble::cuda {

// The functions that nibble calls, the library's handle and its workspace, made once for all GEMMs.
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
  void* workspace;  // [cublaslt_workspace_bytes], aligned to 256; for GEMMs on the compute stream only
};
constexpr size_t cublaslt_workspace_bytes = size_t{64} << 20;

// Returns the library; null where there is none, or where it does not work with the device: then cublaslt_absence()
// tells why. Allocates and launches at the first call.
const CublasLt* cublaslt();
const std::string& cublaslt_absence();

// Returns the version, such as 130100; 0 where the library is absent.
size_t cublaslt_version();
// Turns 130100 into "13.1.0".
std::string name_of_cublaslt_version(size_t version);
// Returns what a version is known to do wrong with NVFP4; empty where nothing is known. 12.8 mixes up entries of its
// heuristic cache; 13.4.0 may ignore the scale of the whole tensor.
std::string known_nvfp4_fault(size_t version);

// Throws ExitCode::internal, naming the function, unless the status is success.
void check(const CublasLt& library, cublasStatus_t status, const char* function);

}  // namespace nibble::cuda
