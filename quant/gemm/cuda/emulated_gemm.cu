// GEMMs of operands that the device does not multiply as they are. The operands are decoded into scratch memory, then
// multiplied by cuBLASLt: in BF16, which holds code * block scale exactly (MX values that leave BF16's range become
// subnormal or infinite); in FP32 where one operand is f32 or has outer scales. Large operands are decoded some rows at
// a time; the inner axis is never cut.
#include <algorithm>

#include "quant/gemm/cuda/gemm_backend.h"
#include "quant/gemm/cuda/gemm_rules.h"
#include "quant/gemm/cuda/library_alpha.h"
#include "quant/gemm/cuda/library_gemm.h"
#include "quant/gemm/gemm_backend_kind.h"
#include "quant/gemm/gemm_common.h"
#include "quant/tensor/device_operand.cuh"

namespace nibble::cuda {
namespace {

// ---- Decoding ----

constexpr int decode_threads = 256;
// A thread block decodes swizzle_rows rows by so many columns: one or two cells of swizzled scales.
constexpr int64_t decode_columns = 128;
constexpr int together = 8;  // elements a thread decodes at a time

template <class T>
struct Decode {
  DeviceOperand operand;
  int64_t first_row, rows;
  T* output;  // [rows, inner]
  int64_t blocks_across;
  bool whole;  // rows start at multiples of 8 codes, and lie along the inner axis
};

template <class T>
__device__ __forceinline__ T as_storage(float value);
template <>
__device__ __forceinline__ float as_storage<float>(float value) {
  return value;
}
template <>
__device__ __forceinline__ BFloat16 as_storage<BFloat16>(float value) {
  return bf16_nearest(value);
}

__device__ __forceinline__ void store_eight(BFloat16* to, const float (&values)[together]) {
  unsigned words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    words[i] = static_cast<unsigned>(bf16_nearest(values[2 * i]).bits) |
               static_cast<unsigned>(bf16_nearest(values[2 * i + 1]).bits) << 16;
  }
  *reinterpret_cast<uint4*>(to) = make_uint4(words[0], words[1], words[2], words[3]);
}
__device__ __forceinline__ void store_eight(float* to, const float (&values)[together]) {
  reinterpret_cast<float4*>(to)[0] = make_float4(values[0], values[1], values[2], values[3]);
  reinterpret_cast<float4*>(to)[1] = make_float4(values[4], values[5], values[6], values[7]);
}

template <class T>
__global__ void __launch_bounds__(decode_threads) decode_kernel(Decode<T> problem) {
  const int64_t first_row = static_cast<int64_t>(blockIdx.x) / problem.blocks_across * swizzle_rows;
  const int64_t first_k = static_cast<int64_t>(blockIdx.x) % problem.blocks_across * decode_columns;
  constexpr int threads_a_row = static_cast<int>(decode_columns) / together;
  const int64_t k = first_k + static_cast<int>(threadIdx.x) % threads_a_row * together;
  const int64_t inner = problem.operand.inner;
  if (k >= inner) return;
  for (int64_t i = threadIdx.x / threads_a_row; i < swizzle_rows; i += decode_threads / threads_a_row) {
    const int64_t row = first_row + i;
    if (row >= problem.rows) return;
    T* const to = problem.output + row * inner + k;
    if (problem.whole) {
      float values[together];
      decode_codes(problem.operand, problem.first_row + row, k, values);
      store_eight(to, values);
    } else {
      for (int64_t j = 0; j < together && k + j < inner; ++j) {
        to[j] = as_storage<T>(value_at(problem.operand, problem.first_row + row, k + j));
      }
    }
  }
}

template <class T>
void decode(const DeviceOperand& operand, int64_t first_row, int64_t rows, void* output) {
  Decode<T> problem{};
  problem.operand = operand;
  problem.first_row = first_row;
  problem.rows = rows;
  problem.output = static_cast<T*>(output);
  problem.blocks_across = div_ceil(operand.inner, decode_columns);
  problem.whole = is_quantized(operand.format) && operand.inner % together == 0;
  const int64_t blocks = div_ceil(rows, swizzle_rows) * problem.blocks_across;
  launch("decode an operand", decode_kernel<T>, {dim3(narrow<unsigned>(blocks)), dim3(decode_threads)}, problem);
}

// Returns rows [first, first + rows) for the library: in `scratch` if they are decoded, else a view of them.
LibraryOperand part_for_library(const DeviceOperand& operand, bool fp32, int64_t first, int64_t rows, void* scratch) {
  LibraryOperand result;
  result.type = fp32 ? CUDA_R_32F : CUDA_R_16BF;
  result.rows = rows;
  if (is_decoded(operand.format, fp32)) {
    result.values = scratch;
    result.stride = operand.inner;
    return result;
  }
  const int64_t step = operand.transposed ? 1 : operand.inner;
  result.values = static_cast<const std::byte*>(operand.values) + first * step * (fp32 ? 4 : 2);
  result.transposed = operand.transposed;
  result.stride = operand.transposed ? operand.rows : operand.inner;
  return result;
}

void decode_part(const DeviceOperand& operand, bool fp32, int64_t first, int64_t rows, void* scratch) {
  if (!is_decoded(operand.format, fp32)) return;
  if (fp32) decode<float>(operand, first, rows, scratch);
  if (!fp32) decode<BFloat16>(operand, first, rows, scratch);
}

// The GEMMs of the library that together are one emulated GEMM.
class Emulation {
 public:
  explicit Emulation(const GemmProblem& problem)
      : problem_(problem),
        shape_(shape_of(problem)),
        parts_(decoded_parts(shape_)),
        a_(device_operand(problem.a)),
        b_(device_operand(problem.b)),
        scratch_of_a_(static_cast<std::byte*>(problem.scratch.data())) {}

  // Returns the GEMM of the rows of a from i on and of those of b from j on, without its alpha.
  LibraryGemm part(int64_t i, int64_t j) const {
    const auto element = static_cast<int64_t>(size_of(problem_.output.dtype()));
    LibraryGemm gemm;
    gemm.part = {.first_row = i,
                 .rows = std::min(parts_.a.rows, shape_.m - i),
                 .first_column = j,
                 .columns = std::min(parts_.b.rows, shape_.n - j)};
    gemm.a = part_for_library(a_, parts_.fp32, i, gemm.part.rows, scratch_of_a_);
    gemm.b = part_for_library(b_, parts_.fp32, j, gemm.part.columns, scratch_of_b());
    gemm.inner = shape_.k;
    gemm.output_dtype = problem_.output.dtype();
    gemm.output_stride = shape_.n;
    gemm.accumulate = problem_.accumulate;
    gemm.output = static_cast<std::byte*>(problem_.output.data()) + (i * shape_.n + j) * element;
    return gemm;
  }

  bool run(Trial trial) const {
    const float* const alpha = library_alpha(problem_.a, problem_.b);
    for (int64_t j = 0; j < shape_.n; j += parts_.b.rows) {
      decode_part(b_, parts_.fp32, j, std::min(parts_.b.rows, shape_.n - j), scratch_of_b());
      for (int64_t i = 0; i < shape_.m; i += parts_.a.rows) {
        LibraryGemm gemm = part(i, j);
        const bool decoded = j == 0 || parts_.a.rows < shape_.m;  // else the rows of the call before are still there
        if (decoded) decode_part(a_, parts_.fp32, i, gemm.part.rows, scratch_of_a_);
        gemm.alpha = alpha;
        if (trial == Trial::first_use) gemm.problem = &problem_;
        if (cuda::multiply(gemm)) continue;
        if (i == 0 && j == 0) return false;
        throw Error(ExitCode::bad_config,
                    "cuBLASLt has no algorithm for the last part of a GEMM that is decoded in parts",
                    "set cuda.gemm to exact");
      }
    }
    return true;
  }

 private:
  std::byte* scratch_of_b() const { return scratch_of_a_ + parts_.a.bytes; }

  const GemmProblem& problem_;
  GemmShape shape_;
  DecodedParts parts_;
  DeviceOperand a_, b_;
  std::byte* scratch_of_a_;
};

class EmulatedGemm final : public GemmBackend {
 public:
  std::string refusal(const GemmShape& /*shape*/) override {
    return cublaslt() == nullptr ? cublaslt_absence() : std::string();
  }
  size_t scratch_bytes(const GemmShape& shape) override {
    const DecodedParts parts = decoded_parts(shape);
    return static_cast<size_t>(parts.a.bytes + parts.b.bytes);
  }
  bool multiply(const GemmProblem& problem, Trial trial) override;
  std::string description() override { return "cuBLASLt " + name_of_cublaslt_version(cublaslt_version()); }
  std::string algorithm(const GemmProblem& problem) override {
    return std::string("emulated in ") + (decoded_parts(shape_of(problem)).fp32 ? "fp32, " : "bf16, ") +
           planned_algorithm(Emulation(problem).part(0, 0));
  }
};

bool EmulatedGemm::multiply(const GemmProblem& problem, Trial trial) {
  cpu::check_gemm(problem);
  NIBBLE_CHECK(problem.scratch.bytes() >= scratch_bytes(shape_of(problem)), "scratch of gemm_scratch_bytes()");
  return Emulation(problem).run(trial);
}

}  // namespace

GemmBackend& emulated_gemm() {
  static EmulatedGemm backend;
  return backend;
}

}  // namespace nibble::cuda
