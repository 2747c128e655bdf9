// GEMMs of operands as they are, by cuBLASLt.
#include "dist/device/cuda_device.h"
#include "quant/gemm/cuda/gemm_backend.h"
#include "quant/gemm/cuda/library_alpha.h"
#include "quant/gemm/cuda/library_gemm.h"
#include "quant/gemm/gemm_backend_kind.h"
#include "quant/gemm/gemm_common.h"
#include "quant/tensor/device_operand.cuh"

namespace nibble::cuda {
namespace {

// The families of formats that cuBLASLt multiplies with one another.
enum class Family : uint8_t { none, bf16, f32, fp8, mxfp8, nvfp4 };

Family family_of(Format format) {
  switch (format) {
    case Format::bf16: return Family::bf16;
    case Format::f32: return Family::f32;
    case Format::fp8_e4m3:
    case Format::fp8_e5m2: return Family::fp8;
    case Format::mxfp8_e4m3:
    case Format::mxfp8_e5m2: return Family::mxfp8;
    case Format::nvfp4: return Family::nvfp4;
    case Format::mxfp4: break;
  }
  return Family::none;
}

bool is_e5m2(Format format) {
  return traits_of(format).element == ElementCode::e5m2;
}

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

std::string refusal_of_device(Family family) {
  const DeviceProperties& device = device_properties();
  const int capability = 10 * device.major + device.minor;
  if (family == Family::fp8 && capability < 89) return device.name + " has no FP8 units";
  if (family == Family::mxfp8 && capability < 100) return device.name + " has no MXFP8 units";
  if (family != Family::nvfp4) return {};
  if (capability < 100) return device.name + " has no FP4 units";
  const std::string fault = known_nvfp4_fault(cublaslt_version());
  if (fault.empty()) return {};
  return "cuBLASLt " + name_of_cublaslt_version(cublaslt_version()) + " " + fault;
}

// Returns why the kernels for narrow formats refuse the shape, or nothing: they want rows that are multiples of 16
// bytes.
std::string refusal_of_shape(Family family, const GemmShape& shape) {
  const bool eight_bits = family == Family::fp8 || family == Family::mxfp8;
  if (eight_bits && (shape.k % 16 != 0 || shape.n % 16 != 0)) {
    return "8-bit GEMMs need k and n in multiples of 16, not " + std::to_string(shape.k) + " and " +
           std::to_string(shape.n);
  }
  if (family == Family::nvfp4 && (shape.k % 32 != 0 || shape.n % 8 != 0)) {
    return "4-bit GEMMs need k in multiples of 32 and n of 8, not " + std::to_string(shape.k) + " and " +
           std::to_string(shape.n) + " (k of a weight's gradient is the number of tokens of a micro-batch)";
  }
  return {};
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
  if (family_of(tensor.format) == Family::mxfp8) operand.scale_mode = CUBLASLT_MATMUL_MATRIX_SCALE_VEC32_UE8M0;
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
  const Family family = family_of(shape.a);
  if (family == Family::none || family != family_of(shape.b)) return "cuBLASLt has no GEMM of these two formats";
  if (is_e5m2(shape.a) && is_e5m2(shape.b)) return "cuBLASLt has no GEMM of two operands in E5M2";
  if (shape.outer_scales) return "cuBLASLt knows no outer scales";
  std::string refusal = refusal_of_device(family);
  return refusal.empty() ? refusal_of_shape(family, shape) : refusal;
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
