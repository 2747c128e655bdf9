// A cuBLASLt for the simulator: it computes what the real one's documentation says of the descriptors that nibble sets,
// in double and rounded once, so that sums differ from those of nibble's own kernels as a library's do. It refuses what
// the real one refuses. Device pointers are read when the stream reaches the operation.
//
// NIBBLE_SIMULATED_LIBRARY_MEMORY is the memory of the GPU, in MiB, that it takes for its kernels with the first
// product. NIBBLE_FAKE_CUBLASLT_VERSION=130400 makes it report that version. NIBBLE_FAKE_CUBLASLT_FAULT makes it wrong,
// in ways in which real libraries or their callers have been wrong: alpha (is ignored), swizzle (scales read in rows),
// beta (is ignored), nibbles (of a swapped), unstable (changes from call to call). Faults of the first of its two
// algorithms only, and only in outputs that are larger than those of the self-test: first_wrong (the last element is
// off by a 16th), first_unstable; and of both: all_wrong. late_wrong: every algorithm, after
// NIBBLE_FAKE_CUBLASLT_RIGHT_RUNS products in all.
#include <cublasLt.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "quant/format/codec.h"
#include "quant/format/swizzle.h"

struct cublasLtMatmulDescOpaque_t {
  int32_t pointer_mode = CUBLASLT_POINTER_MODE_HOST;
  int32_t transpose[2] = {CUBLAS_OP_N, CUBLAS_OP_N};
  int32_t scale_mode[2] = {CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F, CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F};
  const void* scales[2] = {nullptr, nullptr};
};
struct cublasLtMatrixLayoutOpaque_t {
  cudaDataType_t type;
  int64_t rows, columns, stride;
};
struct cublasLtMatmulPreferenceOpaque_t {
  uint64_t workspace_bytes = 0;
  uint32_t reduction_schemes = CUBLASLT_REDUCTION_SCHEME_MASK;
  uint32_t alignment = 256;  // the smallest of those given
};

namespace {

using nibble::BFloat16;

constexpr uint64_t plain_algorithm = 0x6E69626C;
constexpr uint64_t split_algorithm = plain_algorithm + 1;
constexpr uint64_t second_algorithm = plain_algorithm + 2;
int heuristic_calls = 0;

bool has_fault(std::string_view fault) {
  const char* wanted = std::getenv("NIBBLE_FAKE_CUBLASLT_FAULT");
  return wanted != nullptr && fault == wanted;
}

int capability() {
  cudaDeviceProp properties{};
  cudaGetDeviceProperties(&properties, 0);
  return 10 * properties.major + properties.minor;
}

int bits_of_element(cudaDataType_t type) {
  switch (type) {
    case CUDA_R_32F: return 32;
    case CUDA_R_16BF: return 16;
    case CUDA_R_8F_E4M3:
    case CUDA_R_8F_E5M2: return 8;
    case CUDA_R_4F_E2M1: return 4;
  }
  return 0;
}

// An operand, op(A)[i, k] or op(B)[k, j], by its outer index and its inner one.
struct Side {
  cublasLtMatrixLayoutOpaque_t layout;
  bool inner_first;  // the inner axis is that of the columns' elements
  int32_t scale_mode;
  const void* scales;
  const void* values;

  int64_t outer() const { return inner_first ? layout.columns : layout.rows; }
  int64_t inner() const { return inner_first ? layout.rows : layout.columns; }
  double element(int64_t index, int64_t k, bool swapped) const;
  double scale(int64_t index, int64_t block, bool in_rows) const;
  int64_t block_size() const;
  // [outer, inner]
  std::vector<double> decoded(bool swapped) const;
};

int64_t Side::block_size() const {
  if (scale_mode == CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F) return inner();
  return scale_mode == CUBLASLT_MATMUL_MATRIX_SCALE_VEC16_UE4M3 ? 16 : 32;
}

double Side::scale(int64_t index, int64_t block, bool in_rows) const {
  if (scale_mode == CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F) {
    return scales == nullptr ? 1.0 : static_cast<double>(*static_cast<const float*>(scales));
  }
  const int64_t blocks = (inner() + block_size() - 1) / block_size();
  const int64_t place = in_rows ? index * blocks + block : nibble::swizzled_scale_offset(index, block, blocks);
  const uint8_t code = static_cast<const uint8_t*>(scales)[place];
  const bool fine = scale_mode == CUBLASLT_MATMUL_MATRIX_SCALE_VEC16_UE4M3;
  return static_cast<double>(fine ? nibble::e4m3_to_float(code) : nibble::e8m0_to_float(code));
}

double Side::element(int64_t index, int64_t k, bool swapped) const {
  const int64_t place = inner_first ? index * layout.stride + k : k * layout.stride + index;
  const auto* bytes = static_cast<const uint8_t*>(values);
  switch (layout.type) {
    case CUDA_R_32F: return static_cast<double>(static_cast<const float*>(values)[place]);
    case CUDA_R_16BF: return static_cast<double>(nibble::to_float(static_cast<const BFloat16*>(values)[place]));
    case CUDA_R_8F_E4M3: return static_cast<double>(nibble::e4m3_to_float(bytes[place]));
    case CUDA_R_8F_E5M2: return static_cast<double>(nibble::e5m2_to_float(bytes[place]));
    case CUDA_R_4F_E2M1: {
      const bool high = (place % 2 != 0) != swapped;
      return static_cast<double>(nibble::e2m1_to_float(bytes[place / 2] >> (high ? 4 : 0) & 15U));
    }
  }
  return 0;
}

std::vector<double> Side::decoded(bool swapped) const {
  const bool in_rows = has_fault("swizzle");
  std::vector<double> result;
  result.reserve(static_cast<size_t>(outer() * inner()));
  for (int64_t index = 0; index < outer(); ++index) {
    for (int64_t first = 0; first < inner(); first += block_size()) {
      const double factor = scale(index, first / block_size(), in_rows);
      for (int64_t k = first; k < std::min(first + block_size(), inner()); ++k) {
        result.push_back(element(index, k, swapped) * factor);
      }
    }
  }
  return result;
}

struct Call {
  Side a, b;
  cublasLtMatrixLayoutOpaque_t d_layout;
  const float* alpha;
  const float* beta;
  const void* c;
  void* d;
  uint64_t algorithm;
};

int right_runs() {
  const char* wanted = std::getenv("NIBBLE_FAKE_CUBLASLT_RIGHT_RUNS");
  return wanted == nullptr ? 0 : std::atoi(wanted);
}

// Returns by what the last element of an output is wrong.
double factor_of_last(const Call& call, int runs) {
  const bool large = call.d_layout.rows * call.d_layout.columns > 136 * 144;
  const bool first = call.algorithm == plain_algorithm;
  const bool wrong = (large && has_fault("first_wrong") && first) || (large && has_fault("all_wrong")) ||
                     (has_fault("late_wrong") && runs > right_runs());
  if (wrong) return 1.0 + 0x1p-4;
  return large && first && has_fault("first_unstable") && runs % 2 != 0 ? 1.0 + 0x1p-22 : 1.0;
}

void compute(const Call& call) {
  static int runs = 0;
  ++runs;
  const double alpha = has_fault("alpha") ? 1.0 : static_cast<double>(*call.alpha);
  const double beta = has_fault("beta") ? 0.0 : static_cast<double>(*call.beta);
  const bool unstable = has_fault("unstable") && runs % 2 != 0;
  const std::vector<double> a = call.a.decoded(has_fault("nibbles"));
  const std::vector<double> b = call.b.decoded(false);
  const int64_t inner = call.a.inner();
  for (int64_t j = 0; j < call.d_layout.columns; ++j) {
    for (int64_t i = 0; i < call.d_layout.rows; ++i) {
      double sum = 0;
      const double* const left = a.data() + i * inner;
      const double* const right = b.data() + j * inner;
      for (int64_t k = 0; k < inner; ++k) sum += left[k] * right[k];
      if (unstable) sum *= 1.0 + 0x1p-22;
      if (j + 1 == call.d_layout.columns && i + 1 == call.d_layout.rows) sum *= factor_of_last(call, runs);
      const int64_t place = j * call.d_layout.stride + i;
      double value = alpha * sum;
      if (call.d_layout.type == CUDA_R_32F) {
        if (beta != 0) value += beta * static_cast<double>(static_cast<const float*>(call.c)[place]);
        static_cast<float*>(call.d)[place] = static_cast<float>(value);
      } else {
        if (beta != 0)
          value += beta * static_cast<double>(nibble::to_float(static_cast<const BFloat16*>(call.c)[place]));
        static_cast<BFloat16*>(call.d)[place] = nibble::bf16_nearest_once(value);
      }
    }
  }
}

// ---- What is supported ----

bool narrow(cudaDataType_t type) {
  return bits_of_element(type) <= 8;
}

bool in_rows_of_16_bytes(const cublasLtMatrixLayoutOpaque_t& layout) {
  return layout.stride * bits_of_element(layout.type) % 128 == 0;
}

bool supported_narrow(const Side& a, const Side& b, const cublasLtMatrixLayoutOpaque_t& d) {
  const bool four_bits = a.layout.type == CUDA_R_4F_E2M1 || b.layout.type == CUDA_R_4F_E2M1;
  if (!a.inner_first || !b.inner_first) return false;  // TN only
  if (a.scale_mode != b.scale_mode) return false;
  if (a.layout.type == CUDA_R_8F_E5M2 && b.layout.type == CUDA_R_8F_E5M2) return false;
  for (const cublasLtMatrixLayoutOpaque_t& layout : {a.layout, b.layout, d}) {
    if (!in_rows_of_16_bytes(layout)) return false;
  }
  if (four_bits) {
    return a.layout.type == b.layout.type && a.scale_mode == CUBLASLT_MATMUL_MATRIX_SCALE_VEC16_UE4M3 &&
           a.inner() % 32 == 0 && capability() >= 100;
  }
  if (a.scale_mode == CUBLASLT_MATMUL_MATRIX_SCALE_VEC16_UE4M3) return false;
  const bool blocks = a.scale_mode == CUBLASLT_MATMUL_MATRIX_SCALE_VEC32_UE8M0;
  return a.inner() % (blocks ? 32 : 16) == 0 && capability() >= (blocks ? 100 : 89);
}

Side side_of(const cublasLtMatmulDescOpaque_t& desc, const cublasLtMatrixLayoutOpaque_t& layout, int which) {
  const bool transposed = desc.transpose[which] == CUBLAS_OP_T;
  return {layout, which == 0 ? transposed : !transposed, desc.scale_mode[which], desc.scales[which], nullptr};
}

cublasStatus_t status_of(const cublasLtMatmulDescOpaque_t& desc, const cublasLtMatrixLayoutOpaque_t& a_layout,
                         const cublasLtMatrixLayoutOpaque_t& b_layout, const cublasLtMatrixLayoutOpaque_t& d) {
  const Side a = side_of(desc, a_layout, 0);
  const Side b = side_of(desc, b_layout, 1);
  if (a.inner() != b.inner() || a.outer() != d.rows || b.outer() != d.columns) return CUBLAS_STATUS_INVALID_VALUE;
  for (const cublasLtMatrixLayoutOpaque_t& layout : {a_layout, b_layout, d}) {
    if (layout.stride < layout.rows) return CUBLAS_STATUS_INVALID_VALUE;
  }
  if (d.type != CUDA_R_32F && d.type != CUDA_R_16BF) return CUBLAS_STATUS_NOT_SUPPORTED;
  if (narrow(a_layout.type) != narrow(b_layout.type)) return CUBLAS_STATUS_NOT_SUPPORTED;
  if (narrow(a_layout.type)) return supported_narrow(a, b, d) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
  const bool same = a_layout.type == b_layout.type;
  const bool scaled = a.scales != nullptr || b.scales != nullptr;
  const bool f32_to_bf16 = a_layout.type == CUDA_R_32F && d.type == CUDA_R_16BF;
  return same && !scaled && !f32_to_bf16 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

// Takes memory of the GPU with the first product.
bool kernels_are_loaded() {
  static const bool loaded = [] {
    const char* wanted = std::getenv("NIBBLE_SIMULATED_LIBRARY_MEMORY");
    void* memory = nullptr;
    return wanted == nullptr || cudaMalloc(&memory, static_cast<size_t>(std::atoll(wanted)) << 20) == cudaSuccess;
  }();
  return loaded;
}

void put(cublasLtMatmulHeuristicResult_t& result, uint64_t algorithm) {
  result = {};
  result.algo.data[0] = algorithm;
  result.state = CUBLAS_STATUS_SUCCESS;
}

template <class Value>
cublasStatus_t assign(Value& to, const void* value, size_t bytes) {
  if (bytes != sizeof to) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&to, value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

}  // namespace

extern "C" {

int fake_cublaslt_heuristic_calls() {
  return heuristic_calls;
}

size_t cublasLtGetVersion() {
  const char* wanted = std::getenv("NIBBLE_FAKE_CUBLASLT_VERSION");
  return wanted == nullptr ? 130100 : static_cast<size_t>(std::atoll(wanted));
}
const char* cublasLtGetStatusString(cublasStatus_t status) {
  return status == CUBLAS_STATUS_SUCCESS ? "CUBLAS_STATUS_SUCCESS" : "a status of the simulated library";
}
cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  static int any = 0;
  *handle = reinterpret_cast<cublasLtHandle_t>(&any);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* desc, cublasComputeType_t, cudaDataType_t scale) {
  if (scale != CUDA_R_32F) return CUBLAS_STATUS_INVALID_VALUE;
  *desc = new cublasLtMatmulDescOpaque_t;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) {
  delete desc;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, size_t bytes) {
  int8_t fast = 0;
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_POINTER_MODE: return assign(desc->pointer_mode, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSA: return assign(desc->transpose[0], value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB: return assign(desc->transpose[1], value, bytes);
    case CUBLASLT_MATMUL_DESC_A_SCALE_POINTER: return assign(desc->scales[0], value, bytes);
    case CUBLASLT_MATMUL_DESC_B_SCALE_POINTER: return assign(desc->scales[1], value, bytes);
    case CUBLASLT_MATMUL_DESC_A_SCALE_MODE: return assign(desc->scale_mode[0], value, bytes);
    case CUBLASLT_MATMUL_DESC_B_SCALE_MODE: return assign(desc->scale_mode[1], value, bytes);
    case CUBLASLT_MATMUL_DESC_FAST_ACCUM: return assign(fast, value, bytes);
  }
  return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType_t type, uint64_t rows,
                                          uint64_t columns, int64_t stride) {
  *layout = new cublasLtMatrixLayoutOpaque_t{type, static_cast<int64_t>(rows), static_cast<int64_t>(columns), stride};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete layout;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  *preference = new cublasLtMatmulPreferenceOpaque_t;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  delete preference;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void* value,
                                                    size_t bytes) {
  if (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES) return assign(preference->workspace_bytes, value, bytes);
  if (attribute == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK) {
    return assign(preference->reduction_schemes, value, bytes);
  }
  uint32_t alignment = 0;
  const cublasStatus_t status = assign(alignment, value, bytes);
  preference->alignment = std::min(preference->alignment, alignment);
  return status;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t,
                                              cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t preference,
                                              int wanted, cublasLtMatmulHeuristicResult_t results[], int* found) {
  ++heuristic_calls;
  *found = 0;
  const cublasStatus_t status = status_of(*desc, *a, *b, *d);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  if (narrow(a->type) && preference->alignment < 16) return CUBLAS_STATUS_NOT_SUPPORTED;
  // The mask is only a wish: an algorithm that is split comes first, whatever the mask says.
  if (*found < wanted) put(results[(*found)++], split_algorithm);
  if (*found < wanted) put(results[(*found)++], plain_algorithm);
  if (*found < wanted) put(results[(*found)++], second_algorithm);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
                                       cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t* algorithm, cublasLtMatmulHeuristicResult_t* result) {
  const uint64_t number = algorithm->data[0];
  if (number < plain_algorithm || number > second_algorithm) return CUBLAS_STATUS_INVALID_VALUE;
  put(*result, number);
  return status_of(*desc, *a, *b, *d);
}

cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t* algorithm,
                                                    cublasLtMatmulAlgoConfigAttributes_t attribute, void* value,
                                                    size_t bytes, size_t* written) {
  const bool split = algorithm->data[0] == split_algorithm;
  uint32_t number = 0;
  if (attribute == CUBLASLT_ALGO_CONFIG_ID) number = static_cast<uint32_t>(algorithm->data[0] - plain_algorithm + 1);
  if (attribute == CUBLASLT_ALGO_CONFIG_SPLITK_NUM) number = split ? 4 : 1;
  if (attribute == CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME) number = split ? 2 : 0;
  if (bytes != sizeof number) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(value, &number, bytes);
  *written = bytes;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t desc, const void* alpha, const void* a,
                              cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout,
                              const void* beta, const void* c, cublasLtMatrixLayout_t, void* d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* algorithm, void* workspace,
                              size_t, cudaStream_t stream) {
  const cublasStatus_t status = status_of(*desc, *a_layout, *b_layout, *d_layout);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  if (algorithm == nullptr || algorithm->data[0] == split_algorithm) return CUBLAS_STATUS_INVALID_VALUE;
  if (desc->pointer_mode != CUBLASLT_POINTER_MODE_DEVICE) return CUBLAS_STATUS_NOT_SUPPORTED;
  if (reinterpret_cast<uintptr_t>(workspace) % 256 != 0) return CUBLAS_STATUS_INVALID_VALUE;
  if (!kernels_are_loaded()) return CUBLAS_STATUS_ALLOC_FAILED;
  Call call{side_of(*desc, *a_layout, 0),
            side_of(*desc, *b_layout, 1),
            *d_layout,
            static_cast<const float*>(alpha),
            static_cast<const float*>(beta),
            c,
            d,
            algorithm->data[0]};
  call.a.values = a;
  call.b.values = b;
  simulator::enqueue(stream, [call] { compute(call); });
  return CUBLAS_STATUS_SUCCESS;
}
}
