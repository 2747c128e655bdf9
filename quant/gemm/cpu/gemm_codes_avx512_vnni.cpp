// The GEMM kernels on codes for AVX-512 with VNNI. They give the bits of gemm_codes_portable.cpp.
#include <immintrin.h>

#include <utility>

#include "quant/format/tile.h"
#include "quant/gemm/cpu/gemm_codes.h"
#include "quant/recipe/operand_spec.h"

namespace nibble::cpu {
namespace {

#include "quant/isa/avx512_vectors.inl"

// The sum starts from the bits of 1.5 * 2^23, less the bias: read as FP32 the bits of the result are
// 1.5 * 2^23 + sum, exactly, and one multiply-add leaves sum * scale. That saves the conversion of every sum.
struct QuadDot {
  static constexpr int constants = 2;
  static constexpr double unpacking_cost = 0.4;
  using Sum = IntVector;

  static ALWAYS_INLINE Sum first(IntVector left, IntVector right, const Vector (&prepared)[2]) {
    return next(reinterpret_cast<Sum>(prepared[0]), left, right);
  }
  static ALWAYS_INLINE Sum next(Sum sum, IntVector left, IntVector right) {
    return reinterpret_cast<Sum>(_mm512_dpbusd_epi32(reinterpret_cast<__m512i>(sum), reinterpret_cast<__m512i>(left),
                                                     reinterpret_cast<__m512i>(right)));
  }
  static ALWAYS_INLINE Vector scaled(Sum sum, Vector scale, const Vector (&prepared)[2]) {
    return fused(reinterpret_cast<Vector>(sum), scale, prepared[1]);
  }
  static ALWAYS_INLINE void prepare(const IntVector (&values)[4], Vector scale, std::byte* to) {
    IntVector bias{};
#pragma GCC unroll 4
    for (const IntVector& quad : values) bias = next(bias, broadcast_int(0x0C0C0C0C), quad);
    const IntVector start = 0x4B400000 - bias;
    const Vector addend = scale * -12582912.0F;
    __builtin_memcpy(to, &start, sizeof start);
    __builtin_memcpy(to + 64, &addend, sizeof addend);
  }
};

constexpr int kernel_rows = 8;
constexpr int kernel_vectors = 2;
constexpr int rows_at_once = 2;
constexpr int64_t panel_columns = 32;
constexpr int64_t pass_blocks = 32;

#include "quant/gemm/cpu/gemm_codes.inl"

}  // namespace

const CodeKernels code_kernels_avx512_vnni = make_code_kernels<QuadDot>();

}  // namespace nibble::cpu
