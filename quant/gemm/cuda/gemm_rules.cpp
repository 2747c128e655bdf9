#include "quant/gemm/cuda/gemm_rules.h"

#include <algorithm>

#include "quant/format/format.h"

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

std::string refusal_of_device(Family family, int capability, const std::string& device) {
  if (family == Family::fp8 && capability < 89) return device + " has no FP8 units";
  if (family == Family::mxfp8 && capability < 100) return device + " has no MXFP8 units";
  if (family == Family::nvfp4 && capability < 100) return device + " has no FP4 units";
  return {};
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

constexpr int64_t part_alignment = 512;
constexpr int64_t row_step = 128;
int64_t largest_part = int64_t{256} << 20;  // bytes of a decoded operand, beyond which it is cut

DecodedPart part_of(Format format, int64_t rows, int64_t k, bool fp32) {
  if (!is_decoded(format, fp32)) return {rows, 0};
  const int64_t row_bytes = k * (fp32 ? 4 : 2);
  const int64_t fitting = std::max(row_step, largest_part / std::max<int64_t>(row_bytes, 1) / row_step * row_step);
  DecodedPart part;
  part.rows = std::min(rows, fitting);
  part.bytes = round_up(part.rows * row_bytes, part_alignment);
  return part;
}

}  // namespace

std::string native_gemm_refusal(const GemmShape& shape, int capability, const std::string& device) {
  const Family family = family_of(shape.a);
  if (family == Family::none || family != family_of(shape.b)) return "cuBLASLt has no GEMM of these two formats";
  if (is_e5m2(shape.a) && is_e5m2(shape.b)) return "cuBLASLt has no GEMM of two operands in E5M2";
  if (shape.outer_scales) return "cuBLASLt knows no outer scales";
  std::string refusal = refusal_of_device(family, capability, device);
  return refusal.empty() ? refusal_of_shape(family, shape) : refusal;
}

bool is_decoded(Format format, bool fp32) {
  return format != (fp32 ? Format::f32 : Format::bf16);
}

DecodedParts decoded_parts(const GemmShape& shape) {
  const bool fp32 = shape.outer_scales || shape.a == Format::f32 || shape.b == Format::f32;
  return {fp32, part_of(shape.a, shape.m, shape.k, fp32), part_of(shape.b, shape.n, shape.k, fp32)};
}

void set_largest_decoded_part(int64_t bytes) {
  largest_part = bytes;
}

size_t described_scratch_bytes(const GemmShape& shape, const DescribedGpu& gpu) {
  using Products = DescribedGpu::Products;
  const bool is_native =
      gpu.products == Products::native && native_gemm_refusal(shape, gpu.capability, "the GPU").empty();
  if (is_native || gpu.products == Products::exact) return 0;
  const DecodedParts parts = decoded_parts(shape);
  return static_cast<size_t>(parts.a.bytes + parts.b.bytes);
}

}  // namespace nibble::cuda
