// The product of codes for AVX-512 with VNNI. Same bits as gemm_codes_portable.cpp.
#include <immintrin.h>

#include <utility>

#include "quant/gemm_codes.h"
#include "quant/operand_spec.h"
#include "quant/tile.h"

namespace nibble::cpu {
namespace {

#include "quant/avx512_vectors.inl"

// The sum starts from the bits of 1.5 * 2^23, less the bias: read as FP32 the bits of the result are
// 1.5 * 2^23 + sum, exactly, and one multiply-add leaves sum * scale. That saves the conversion of every sum.
struct QuadDot {
  static constexpr int constants = 2;
  static constexpr double unpacking_cost = 0.4;

  static ALWAYS_INLINE IntVector sum_from(IntVector start, const IntVector (&left)[4], const IntVector (&right)[4]) {
    auto sum = reinterpret_cast<__m512i>(start);
#pragma GCC unroll 4
    for (int quad = 0; quad < 4; ++quad) {
      sum = _mm512_dpbusd_epi32(sum, reinterpret_cast<__m512i>(left[quad]), reinterpret_cast<__m512i>(right[quad]));
    }
    return reinterpret_cast<IntVector>(sum);
  }
  static ALWAYS_INLINE IntVector plain(const IntVector (&left)[4], const IntVector (&right)[4]) {
    return sum_from(IntVector{}, left, right);
  }
  static ALWAYS_INLINE void prepare(IntVector bias, Vector scale, std::byte* to) {
    const IntVector start = 0x4B400000 - bias;
    const Vector addend = scale * -12582912.0F;
    __builtin_memcpy(to, &start, sizeof start);
    __builtin_memcpy(to + 64, &addend, sizeof addend);
  }
  static ALWAYS_INLINE Vector scaled(const IntVector (&left)[4], const IntVector (&right)[4], Vector scale,
                                     const Vector (&prepared)[2]) {
    const IntVector sum = sum_from(reinterpret_cast<IntVector>(prepared[0]), left, right);
    return fused(reinterpret_cast<Vector>(sum), scale, prepared[1]);
  }
};

constexpr int kernel_rows = 8;
constexpr int kernel_vectors = 2;
constexpr int64_t panel_columns = 32;
constexpr int64_t pass_blocks = 32;

#include "quant/gemm_codes.inl"

}  // namespace

const CodeKernels code_kernels_avx512_vnni = make_code_kernels<QuadDot>();

}  // namespace nibble::cpu
