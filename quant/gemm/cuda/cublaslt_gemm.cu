// GEMMs of operands as they are, by cuBLASLt.
#include "dist/device/cuda_device.h"
#include "quant/gemm/cuda/gemm_backend.h"
#include "quant/gemm/cuda/gemm_rules.h"
#include "quant/gemm/cuda/library_alpha.h"
#include "quant/gemm/cuda/library_gemm.h"
#include "quant/gemm/gemm_backend_kind.h"
#include "quant/gemm/gemm_common.h"
#include "quant/tensor/device_operand.cuh"

namespace nibble::cuda {
namespace {

cudaDataType_t type_of(Format format) {
  if (format == Format::f32) return CUDA_R_32F;
  switch (traits_of(format).element) {
    case ElementCode::e2m1: return CUDA_R_4F_E2M1;
    case ElementCode::e4m3: return CUDA_R_8F_E4M3;
    case ElementCode::e5m2: return CUDA_R_8F_E5M2;
    case ElementCode::none: break;
  }
  return CUDA_R_16BF;
}

LibraryOperand library_operand(const QuantizedTensor& tensor) {
  const DeviceOperand checked = device_operand(tensor);
  LibraryOperand operand;
  operand.values = checked.values;
  operand.type = type_of(tensor.format);
  operand.transposed = tensor.transposed;
  operand.rows = tensor.rows;
  operand.stride = tensor.transposed ? tensor.rows : tensor.inner;
  operand.block_scales = checked.block_scales;
  if (tensor.format == Format::nvfp4) operand.scale_mode = CUBLASLT_MATMUL_MATRIX_SCALE_VEC16_UE4M3;
  const bool mxfp8 = tensor.format == Format::mxfp8_e4m3 || tensor.format == Format::mxfp8_e5m2;
  if (mxfp8) operand.scale_mode = CUBLASLT_MATMUL_MATRIX_SCALE_VEC32_UE8M0;
  return operand;
}

// Returns the GEMM without its alpha.
LibraryGemm library_gemm(const GemmProblem& problem) {
  LibraryGemm gemm;
  gemm.a = library_operand(problem.a);
  gemm.b = library_operand(problem.b);
  gemm.inner = problem.a.inner;
  gemm.output = problem.output.data();
  gemm.output_dtype = problem.output.dtype();
  gemm.output_stride = problem.b.rows;
  gemm.accumulate = problem.accumulate;
  gemm.part = {.rows = problem.a.rows, .columns = problem.b.rows};
  return gemm;
}

class CublasLtGemm final : public GemmBackend {
 public:
  std::string refusal(const GemmShape& shape) override;
  bool multiply(const GemmProblem& problem, Trial trial) override;
  std::string algorithm(const GemmProblem& problem) override {
    return "native, " + planned_algorithm(library_gemm(problem));
  }
  std::string description() override { return "cuBLASLt " + name_of_cublaslt_version(cublaslt_version()); }
};

std::string CublasLtGemm::refusal(const GemmShape& shape) {
  if (cublaslt() == nullptr) return cublaslt_absence();
  const DeviceProperties& device = device_properties();
  std::string refusal = native_gemm_refusal(shape, 10 * device.major + device.minor, device.name);
  if (!refusal.empty() || shape.a != Format::nvfp4) return refusal;
  const std::string fault = known_nvfp4_fault(cublaslt_version());
  return fault.empty() ? "" : "cuBLASLt " + name_of_cublaslt_version(cublaslt_version()) + " " + fault;
}

bool CublasLtGemm::multiply(const GemmProblem& problem, Trial trial) {
  cpu::check_gemm(problem);
  LibraryGemm gemm = library_gemm(problem);
  gemm.alpha = library_alpha(problem.a, problem.b);
  if (trial == Trial::first_use) gemm.problem = &problem;
  return cuda::multiply(gemm);
}

}  // namespace

GemmBackend& cublaslt_gemm() {
  static CublasLtGemm backend;
  return backend;
}

}  // namespace nibble::cuda
