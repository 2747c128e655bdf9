// The matrix product for any machine: correct first, and the definition of the bits that the other twins give.
#include <utility>

#include "quant/codec.h"
#include "quant/gemm.h"
#include "quant/gemm_kernels.h"

namespace nibble::cpu {
namespace {

constexpr int lanes = 4;
using Vector = float __attribute__((vector_size(16)));
using UnsignedVector = uint32_t __attribute__((vector_size(16)));
using IntVector = int32_t __attribute__((vector_size(16)));
using Bytes = uint8_t __attribute__((vector_size(16)));

constexpr int plain_rows = 4;
constexpr int plain_vectors = 1;
constexpr int code_rows = 4;
constexpr int code_vectors = 1;
constexpr int64_t block_rows = 128;
constexpr int64_t block_columns = 128;
constexpr int64_t row_step = 4;
constexpr int64_t column_step = 4;

using HalfVector = float __attribute__((vector_size(8)));
using Double = double __attribute__((vector_size(16)));
using Bits = uint64_t __attribute__((vector_size(16)));

// a * b + c rounded once, on a machine without the instruction. In double the product is exact; the sum is rounded to
// odd (its last bit set when inexact), after which rounding to FP32 gives what one rounding would: Boldo and Melquiond,
// "Emulation of FMA and correctly rounded sums", IEEE Transactions on Computers 57(4), 2008.
inline __attribute__((always_inline)) HalfVector fused_pair(HalfVector a, HalfVector b, HalfVector c) {
  const Double product = __builtin_convertvector(a, Double) * __builtin_convertvector(b, Double);
  const Double addend = __builtin_convertvector(c, Double);
  const Double sum = product + addend;
  const Double addend_part = sum - product;
  const Double error = (product - (sum - addend_part)) + (addend - addend_part);  // exact; NaN when sum is not finite
  const Bits bits = reinterpret_cast<Bits>(sum);
  const Bits error_bits = reinterpret_cast<Bits>(error);
  const Bits magnitude = error_bits & 0x7FFFFFFFFFFFFFFFU;
  const Bits nonzero = (magnitude + 0x7FFFFFFFFFFFFFFFU) >> 63;  // in integers, since SSE2 code for comparisons is slow
  const Bits not_finite = (magnitude + 0x0010000000000000U) >> 63;
  const Bits moves = (nonzero ^ not_finite) & ~bits;             // 1 where the sum is inexact and even
  const Bits toward_zero = moves & ((bits ^ error_bits) >> 63);  // 1 where the exact sum is the smaller one
  const Bits odd = bits + moves - (toward_zero + toward_zero);
  return __builtin_convertvector(reinterpret_cast<Double>(odd), HalfVector);
}

inline __attribute__((always_inline)) Vector fused(Vector a, Vector b, Vector c) {
#ifdef __FP_FAST_FMAF
  Vector result;
  for (int i = 0; i < lanes; ++i) result[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return result;
#else
  const HalfVector low = fused_pair(HalfVector{a[0], a[1]}, HalfVector{b[0], b[1]}, HalfVector{c[0], c[1]});
  const HalfVector high = fused_pair(HalfVector{a[2], a[3]}, HalfVector{b[2], b[3]}, HalfVector{c[2], c[3]});
  return Vector{low[0], low[1], high[0], high[1]};
#endif
}
inline __attribute__((always_inline)) Vector broadcast(float value) {
  return Vector{value, value, value, value};
}
inline __attribute__((always_inline)) IntVector broadcast_int(int32_t value) {
  return IntVector{value, value, value, value};
}
inline __attribute__((always_inline)) Bytes lookup(Bytes table, Bytes index) {
  Bytes result{};
  for (int i = 0; i < 16; ++i) result[i] = table[index[i]];
  return result;
}

// In FP32, which is exact for integers of this size and, on old machines, the faster multiplication.
struct FloatDot {
  static inline __attribute__((always_inline)) IntVector dot(const IntVector (&a)[4], const std::byte* b,
                                                             IntVector start) {
    constexpr int64_t quad_stride = code_vectors * lanes * 4;  // bytes
    Vector sum{};
#pragma GCC unroll 4
    for (int quad = 0; quad < 4; ++quad) {
      IntVector right;
      __builtin_memcpy(&right, b + quad * quad_stride, sizeof right);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        sum += __builtin_convertvector((a[quad] >> (8 * i)) & 0xFF, Vector) *
               __builtin_convertvector((right << (24 - 8 * i)) >> 24, Vector);
      }
    }
    return __builtin_convertvector(sum, IntVector) + start;
  }
};

#include "quant/gemm_kernels.inl"

}  // namespace

const GemmKernels gemm_portable = make_kernels<FloatDot>();

}  // namespace nibble::cpu
