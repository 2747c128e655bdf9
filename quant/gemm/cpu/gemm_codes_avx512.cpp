// The GEMM kernels on codes for AVX-512 (F, BW, VL, DQ). They give the bits of gemm_codes_portable.cpp.
#include <immintrin.h>

#include <utility>

#include "quant/format/tile.h"
#include "quant/gemm/cpu/gemm_codes.h"
#include "quant/recipe/operand_spec.h"

namespace nibble::cpu {
namespace {

#include "quant/isa/avx512_vectors.inl"

// Sums of pairs of products fit 16 bits: 4 * 2 * 24 * 12 < 2^15. The bias times the scale is exact, and so is their
// sum, which is the corrected sum times the scale.
struct PairwiseDot {
  static constexpr int constants = 1;
  static constexpr double unpacking_cost = 0.25;
  using Sum = __m512i;

  static ALWAYS_INLINE Sum products(IntVector left, IntVector right) {
    return _mm512_maddubs_epi16(reinterpret_cast<__m512i>(left), reinterpret_cast<__m512i>(right));
  }
  static ALWAYS_INLINE Sum first(IntVector left, IntVector right, const Vector (&/*prepared*/)[1]) {
    return products(left, right);
  }
  static ALWAYS_INLINE Sum next(Sum sum, IntVector left, IntVector right) {
    return _mm512_add_epi16(sum, products(left, right));
  }
  static ALWAYS_INLINE Vector total(Sum sum) {
    return __builtin_convertvector(reinterpret_cast<IntVector>(_mm512_madd_epi16(sum, _mm512_set1_epi16(1))), Vector);
  }
  static ALWAYS_INLINE Vector scaled(Sum sum, Vector scale, const Vector (&prepared)[1]) {
    return fused(total(sum), scale, prepared[0]);
  }
  static ALWAYS_INLINE void prepare(const IntVector (&values)[4], Vector scale, std::byte* to) {
    Sum bias{};
#pragma GCC unroll 4
    for (const IntVector& quad : values) bias = next(bias, broadcast_int(0x0C0C0C0C), quad);
    const Vector addend = -total(bias) * scale;
    __builtin_memcpy(to, &addend, sizeof addend);
  }
};

constexpr int kernel_rows = 8;
constexpr int kernel_vectors = 2;
constexpr int rows_at_once = 1;
constexpr int64_t panel_columns = 32;
constexpr int64_t pass_blocks = 32;

#include "quant/gemm/cpu/gemm_codes.inl"

}  // namespace

const CodeKernels code_kernels_avx512 = make_code_kernels<PairwiseDot>();

}  // namespace nibble::cpu
