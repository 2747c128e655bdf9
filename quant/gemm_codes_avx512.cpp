// The product of codes for AVX-512 (F, BW, VL, DQ). Same bits as gemm_codes_portable.cpp.
#include <immintrin.h>

#include <utility>

#include "quant/gemm_codes.h"
#include "quant/operand_spec.h"
#include "quant/tile.h"

namespace nibble::cpu {
namespace {

#include "quant/avx512_vectors.inl"

// Sums of pairs of products fit 16 bits: 4 * 2 * 24 * 12 < 2^15. The bias times the scale is exact,
// and so is their sum, which is the corrected sum times the scale.
struct PairwiseDot {
  static constexpr int constants = 1;
  static constexpr double unpacking_cost = 0.25;

  static ALWAYS_INLINE IntVector plain(const IntVector (&left)[4], const IntVector (&right)[4]) {
    __m512i products[4];
#pragma GCC unroll 4
    for (int quad = 0; quad < 4; ++quad) {
      products[quad] =
          _mm512_maddubs_epi16(reinterpret_cast<__m512i>(left[quad]), reinterpret_cast<__m512i>(right[quad]));
    }
    const __m512i sum =
        _mm512_add_epi16(_mm512_add_epi16(products[0], products[1]), _mm512_add_epi16(products[2], products[3]));
    return reinterpret_cast<IntVector>(_mm512_madd_epi16(sum, _mm512_set1_epi16(1)));
  }
  static ALWAYS_INLINE void prepare(IntVector bias, Vector scale, std::byte* to) {
    const Vector addend = __builtin_convertvector(-bias, Vector) * scale;
    __builtin_memcpy(to, &addend, sizeof addend);
  }
  static ALWAYS_INLINE Vector scaled(const IntVector (&left)[4], const IntVector (&right)[4], Vector scale,
                                     const Vector (&prepared)[1]) {
    return fused(__builtin_convertvector(plain(left, right), Vector), scale, prepared[0]);
  }
};

constexpr int kernel_rows = 8;
constexpr int kernel_vectors = 2;
constexpr int64_t panel_columns = 32;
constexpr int64_t pass_blocks = 32;

#include "quant/gemm_codes.inl"

}  // namespace

const CodeKernels code_kernels_avx512 = make_code_kernels<PairwiseDot>();

}  // namespace nibble::cpu
