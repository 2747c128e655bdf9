// Builds the descriptors that the cuBLAS documentation of narrow formats asks for. cuBLASLt is column-major: the
// row-major output [m, n] is its D, n x m, so that our b is its A and our a its B, and an operand [rows, inner] is a
// matrix inner x rows of it, A to be transposed and B not.
#include "quant/gemm/cuda/library_gemm.h"

#include <algorithm>
#include <array>
#include <optional>
#include <set>
#include <vector>

#include "dist/base/log_line.h"
#include "dist/device/cuda_device.h"
#include "dist/device/launch.cuh"
#include "quant/gemm/cuda/gemm_backend.h"
#include "quant/gemm/cuda/gemm_trial.h"
#include "quant/gemm/cuda/library_alpha.h"
#include "quant/gemm/gemm_backend_kind.h"

namespace nibble::cuda {
namespace {

GemmPlan& plan() {
  static GemmPlan of_process;
  return of_process;
}

GemmPlanOrigin origin() {
  return {device_properties().name, cublaslt_version()};
}

// The descriptors of one GEMM, alive while cuBLASLt is called.
class Descriptors {
 public:
  Descriptors(const CublasLt& lt, const LibraryGemm& gemm);
  ~Descriptors();
  Descriptors(const Descriptors&) = delete;
  Descriptors& operator=(const Descriptors&) = delete;

  std::vector<PlannedAlgorithm> candidates();
  bool accepts(const PlannedAlgorithm& algorithm);
  void run(const PlannedAlgorithm& algorithm);

 private:
  template <class Value>
  void set(cublasLtMatmulDescAttributes_t attribute, Value value) {
    check(lt_, lt_.desc_set(operation_, attribute, &value, sizeof value), "cublasLtMatmulDescSetAttribute");
  }
  template <class Value>
  void prefer(cublasLtMatmulPreferenceAttributes_t attribute, Value value) {
    check(lt_, lt_.preference_set(preference_, attribute, &value, sizeof value),
          "cublasLtMatmulPreferenceSetAttribute");
  }
  cublasLtMatrixLayout_t layout_of(const LibraryOperand& operand);
  void describe_operation();
  void describe_preference();
  bool is_repeatable(const cublasLtMatmulAlgo_t& algorithm) const;

  const CublasLt& lt_;
  const LibraryGemm& gemm_;
  cublasLtMatmulDesc_t operation_ = nullptr;
  cublasLtMatmulPreference_t preference_ = nullptr;
  cublasLtMatrixLayout_t a_ = nullptr;  // layout of cuBLASLt's A
  cublasLtMatrixLayout_t b_ = nullptr;
  cublasLtMatrixLayout_t d_ = nullptr;
};

// Returns the largest power of two up to 256, beyond which no algorithm asks, that divides the address.
uint32_t alignment_of(const void* memory) {
  const auto address = reinterpret_cast<uintptr_t>(memory);
  return static_cast<uint32_t>(std::min<uintptr_t>(address & (~address + 1), 256));
}

cudaDataType_t output_type(const LibraryGemm& gemm) {
  return gemm.output_dtype == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F;
}

Descriptors::Descriptors(const CublasLt& lt, const LibraryGemm& gemm) : lt_(lt), gemm_(gemm) {
  a_ = layout_of(gemm.b);
  b_ = layout_of(gemm.a);
  check(lt_,
        lt_.layout_create(&d_, output_type(gemm), static_cast<uint64_t>(gemm.b.rows),
                          static_cast<uint64_t>(gemm.a.rows), gemm.output_stride),
        "cublasLtMatrixLayoutCreate");
  describe_operation();
  describe_preference();
}

Descriptors::~Descriptors() {
  for (const cublasLtMatrixLayout_t layout : {a_, b_, d_}) lt_.layout_destroy(layout);
  lt_.preference_destroy(preference_);
  lt_.desc_destroy(operation_);
}

cublasLtMatrixLayout_t Descriptors::layout_of(const LibraryOperand& operand) {
  cublasLtMatrixLayout_t layout = nullptr;
  const auto inner = static_cast<uint64_t>(gemm_.inner);
  const auto rows = static_cast<uint64_t>(operand.rows);
  check(lt_,
        lt_.layout_create(&layout, operand.type, operand.transposed ? rows : inner, operand.transposed ? inner : rows,
                          operand.stride),
        "cublasLtMatrixLayoutCreate");
  return layout;
}

void Descriptors::describe_operation() {
  check(lt_, lt_.desc_create(&operation_, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate");
  set(CUBLASLT_MATMUL_DESC_TRANSA, static_cast<int32_t>(gemm_.b.transposed ? CUBLAS_OP_N : CUBLAS_OP_T));
  set(CUBLASLT_MATMUL_DESC_TRANSB, static_cast<int32_t>(gemm_.a.transposed ? CUBLAS_OP_T : CUBLAS_OP_N));
  set(CUBLASLT_MATMUL_DESC_POINTER_MODE, static_cast<int32_t>(CUBLASLT_POINTER_MODE_DEVICE));
  set(CUBLASLT_MATMUL_DESC_FAST_ACCUM, int8_t{0});
  if (gemm_.b.block_scales != nullptr) {
    set(CUBLASLT_MATMUL_DESC_A_SCALE_MODE, static_cast<int32_t>(gemm_.b.scale_mode));
    set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, gemm_.b.block_scales);
  }
  if (gemm_.a.block_scales != nullptr) {
    set(CUBLASLT_MATMUL_DESC_B_SCALE_MODE, static_cast<int32_t>(gemm_.a.scale_mode));
    set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, gemm_.a.block_scales);
  }
}

void Descriptors::describe_preference() {
  check(lt_, lt_.preference_create(&preference_), "cublasLtMatmulPreferenceCreate");
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t{cublaslt_workspace_bytes});
  prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_NONE));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment_of(gemm_.b.values));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment_of(gemm_.a.values));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment_of(gemm_.output));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment_of(gemm_.output));
}

// Returns whether the algorithm does not split the sums along the inner axis. An algorithm without such an option does
// not.
bool Descriptors::is_repeatable(const cublasLtMatmulAlgo_t& algorithm) const {
  size_t written = 0;
  int32_t splits = 1;
  uint32_t scheme = CUBLASLT_REDUCTION_SCHEME_NONE;
  if (lt_.algo_attribute(&algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &splits, sizeof splits, &written) !=
      CUBLAS_STATUS_SUCCESS) {
    splits = 1;
  }
  if (lt_.algo_attribute(&algorithm, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, &scheme, sizeof scheme, &written) !=
      CUBLAS_STATUS_SUCCESS) {
    scheme = CUBLASLT_REDUCTION_SCHEME_NONE;
  }
  return splits <= 1 && scheme == CUBLASLT_REDUCTION_SCHEME_NONE;
}

// Returns the repeatable algorithms that the library proposes, the one that it expects to be fastest first.
std::vector<PlannedAlgorithm> Descriptors::candidates() {
  std::array<cublasLtMatmulHeuristicResult_t, 16> found{};
  int count = 0;
  const cublasStatus_t status = lt_.heuristic(lt_.handle, operation_, a_, b_, d_, d_, preference_,
                                              static_cast<int>(found.size()), found.data(), &count);
  if (status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE) return {};
  check(lt_, status, "cublasLtMatmulAlgoGetHeuristic");
  std::vector<PlannedAlgorithm> result;
  for (int i = 0; i < count; ++i) {
    const cublasLtMatmulHeuristicResult_t& proposed = found[static_cast<size_t>(i)];
    if (proposed.state != CUBLAS_STATUS_SUCCESS || proposed.workspaceSize > cublaslt_workspace_bytes) continue;
    if (!is_repeatable(proposed.algo)) continue;
    PlannedAlgorithm& algorithm = result.emplace_back();
    std::copy(std::begin(proposed.algo.data), std::end(proposed.algo.data), algorithm.words.begin());
    algorithm.workspace_bytes = proposed.workspaceSize;
  }
  return result;
}

cublasLtMatmulAlgo_t as_library_has_it(const PlannedAlgorithm& algorithm) {
  cublasLtMatmulAlgo_t result{};
  std::copy(algorithm.words.begin(), algorithm.words.end(), std::begin(result.data));
  return result;
}

bool Descriptors::accepts(const PlannedAlgorithm& algorithm) {
  const cublasLtMatmulAlgo_t candidate = as_library_has_it(algorithm);
  cublasLtMatmulHeuristicResult_t result{};
  const cublasStatus_t status = lt_.algo_check(lt_.handle, operation_, a_, b_, d_, d_, &candidate, &result);
  return status == CUBLAS_STATUS_SUCCESS && result.workspaceSize <= cublaslt_workspace_bytes;
}

void Descriptors::run(const PlannedAlgorithm& algorithm) {
  const cublasLtMatmulAlgo_t chosen = as_library_has_it(algorithm);
  check(lt_,
        lt_.matmul(lt_.handle, operation_, gemm_.alpha, gemm_.b.values, a_, gemm_.a.values, b_,
                   library_beta(gemm_.accumulate), gemm_.output, d_, gemm_.output, d_, &chosen, lt_.workspace,
                   cublaslt_workspace_bytes, compute_stream()),
        "cublasLtMatmul");
}

GemmPlanKey key_of(const LibraryGemm& gemm) {
  return {{gemm.a.rows, gemm.b.rows, gemm.inner, gemm.a.type, gemm.b.type, output_type(gemm), gemm.a.transposed ? 1 : 0,
           gemm.b.transposed ? 1 : 0, gemm.a.scale_mode, alignment_of(gemm.a.values), alignment_of(gemm.b.values),
           alignment_of(gemm.output), gemm.output_stride}};
}

// The keys whose algorithm this process has accepted, and those whose algorithm it has tried as well.
struct KnownKeys {
  std::set<GemmPlanKey> accepted, tried;
  std::set<GemmPlanKey>& of(const LibraryGemm& gemm) { return gemm.problem == nullptr ? accepted : tried; }
};
KnownKeys& known_keys() {
  static KnownKeys of_process;
  return of_process;
}

std::string text_of(const PlannedAlgorithm& algorithm) {
  const CublasLt& lt = *cublaslt();
  const cublasLtMatmulAlgo_t chosen = as_library_has_it(algorithm);
  const auto number = [&](const char* name, cublasLtMatmulAlgoConfigAttributes_t attribute) -> std::string {
    uint32_t value = 0;
    size_t written = 0;
    if (lt.algo_attribute(&chosen, attribute, &value, sizeof value, &written) != CUBLAS_STATUS_SUCCESS) return {};
    return std::string(name) + std::to_string(value);
  };
  return number("algorithm ", CUBLASLT_ALGO_CONFIG_ID) + number(", tile ", CUBLASLT_ALGO_CONFIG_TILE_ID) +
         number(", stages ", CUBLASLT_ALGO_CONFIG_STAGES_ID);
}

// Returns why the algorithm cannot be used for the GEMM; empty: it can be, and its result is in the output.
std::string fault_of(Descriptors& descriptors, const PlannedAlgorithm& algorithm, const LibraryGemm& gemm) {
  if (!descriptors.accepts(algorithm)) return "the library does not accept it";
  if (gemm.problem != nullptr) {
    const GemmTrial trial{.problem = *gemm.problem, .part = gemm.part, .workspace = cublaslt()->workspace};
    return fault_in_trial(trial, [&] { descriptors.run(algorithm); });
  }
  descriptors.run(algorithm);
  return {};
}

void warn_of_fault(const PlannedAlgorithm& algorithm, const LibraryGemm& gemm, const std::string& fault) {
  write_log(LogLevel::warning, "cuBLASLt " + name_of_cublaslt_version(cublaslt_version()) + ": " + text_of(algorithm) +
                                   " is not used for a GEMM " + std::to_string(gemm.a.rows) + " x " +
                                   std::to_string(gemm.b.rows) + " x " + std::to_string(gemm.inner) + ": " + fault);
}

}  // namespace

bool multiply(const LibraryGemm& gemm) {
  const CublasLt* const lt = cublaslt();
  NIBBLE_CHECK(lt != nullptr, "a GEMM of cuBLASLt where there is none");
  Descriptors descriptors(*lt, gemm);
  const GemmPlanKey key = key_of(gemm);
  const PlannedAlgorithm* const planned = plan().find(key);
  std::set<GemmPlanKey>& known = known_keys().of(gemm);
  if (planned != nullptr && known.contains(key)) {
    descriptors.run(*planned);
    return true;
  }
  if (planned != nullptr) {
    const std::string fault = fault_of(descriptors, *planned, gemm);
    if (fault.empty()) return known.insert(key).second;
    warn_of_fault(*planned, gemm, fault + "; the plan named it, another is chosen, and sums may change");
    plan().forget(key);
  }
  for (const PlannedAlgorithm& candidate : descriptors.candidates()) {
    const std::string fault = fault_of(descriptors, candidate, gemm);
    if (fault.empty()) {
      plan().keep(key, candidate);
      return known.insert(key).second;
    }
    warn_of_fault(candidate, gemm, fault + "; the next is tried");
  }
  return false;
}

std::string planned_algorithm(const LibraryGemm& gemm) {
  const PlannedAlgorithm* const planned = plan().find(key_of(gemm));
  return planned == nullptr ? "no algorithm yet" : text_of(*planned);
}

std::string export_gemm_plan() {
  return plan().text(origin());
}

void import_gemm_plan(std::string_view text) {
  plan().read(text, origin());
  known_keys() = {};
}

}  // namespace nibble::cuda
