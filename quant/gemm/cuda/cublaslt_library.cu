#include "quant/gemm/cuda/cublaslt_library.h"

#include <array>
#include <string_view>

#include "dist/base/dynamic_library.h"
#include "dist/base/error.h"
#include "dist/device/cuda_device.h"
#include "quant/gemm/cuda/library_alpha.h"

namespace nibble::cuda {
namespace {

struct Opened {
  CublasLt functions{};
  bool works = false;
  std::string absence;
};

template <class Function>
void find(const DynamicLibrary& library, Function*& function, const char* name) {
  function = library.function<Function>(name);
}

CublasLt functions_of(const DynamicLibrary& library) {
  CublasLt lt{};
  find(library, lt.get_version, "cublasLtGetVersion");
  find(library, lt.status_string, "cublasLtGetStatusString");
  find(library, lt.create, "cublasLtCreate");
  find(library, lt.desc_create, "cublasLtMatmulDescCreate");
  find(library, lt.desc_destroy, "cublasLtMatmulDescDestroy");
  find(library, lt.desc_set, "cublasLtMatmulDescSetAttribute");
  find(library, lt.layout_create, "cublasLtMatrixLayoutCreate");
  find(library, lt.layout_destroy, "cublasLtMatrixLayoutDestroy");
  find(library, lt.preference_create, "cublasLtMatmulPreferenceCreate");
  find(library, lt.preference_destroy, "cublasLtMatmulPreferenceDestroy");
  find(library, lt.preference_set, "cublasLtMatmulPreferenceSetAttribute");
  find(library, lt.heuristic, "cublasLtMatmulAlgoGetHeuristic");
  find(library, lt.algo_check, "cublasLtMatmulAlgoCheck");
  find(library, lt.algo_attribute, "cublasLtMatmulAlgoConfigGetAttribute");
  find(library, lt.matmul, "cublasLtMatmul");
  return lt;
}

// Allocates memory that is never freed: at the end of the process the driver may be gone first.
void allocate_memory(CublasLt& lt) {
  lt.workspace = allocate(cublaslt_workspace_bytes);
  if (lt.workspace == nullptr) {
    throw Error(ExitCode::out_of_memory, "no 64 MiB of GPU memory for the workspace of cuBLASLt", out_of_memory_remedy);
  }
  allocate_library_scalars();
}

Opened open() {
  constexpr std::array<std::string_view, 2> names{"libcublasLt.so.13", "libcublasLt.so.12"};
  static const DynamicLibrary library(names);
  Opened opened;
  if (!library.available()) {
    opened.absence = "there is no cuBLASLt: " + library.reason();
    return opened;
  }
  opened.functions = functions_of(library);
  const cublasStatus_t status = opened.functions.create(&opened.functions.handle);
  if (status != CUBLAS_STATUS_SUCCESS) {
    opened.absence = library.path() + " does not start: " + opened.functions.status_string(status);
    return opened;
  }
  allocate_memory(opened.functions);
  opened.works = true;
  return opened;
}

const Opened& opened() {
  static const Opened library = open();
  return library;
}

}  // namespace

const CublasLt* cublaslt() {
  return opened().works ? &opened().functions : nullptr;
}

const std::string& cublaslt_absence() {
  return opened().absence;
}

size_t cublaslt_version() {
  return opened().works ? opened().functions.get_version() : 0;
}

std::string name_of_cublaslt_version(size_t version) {
  return std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
         std::to_string(version % 100);
}

std::string known_nvfp4_fault(size_t version) {
  if (version < 120900) return "confuses block-scaled and other GEMMs in its heuristic cache";
  if (version == 130400) return "may ignore the scale of a whole tensor";
  return {};
}

void check(const CublasLt& library, cublasStatus_t status, const char* function) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw Error(ExitCode::internal, std::string("cuBLASLt: ") + function + ": " + library.status_string(status),
              "set cuda.gemm to exact or emulated, and report it with the versions of driver and library");
}

}  // namespace nibble::cuda
