// Vectors of four 32-bit elements and a fused multiply-add for any machine, shared by the portable kernels of GEMMs.
// Each of their sources includes this file inside its anonymous namespace.

constexpr int lanes = 4;
using Vector = float __attribute__((vector_size(16)));
using UnsignedVector = uint32_t __attribute__((vector_size(16)));
using IntVector = int32_t __attribute__((vector_size(16)));

using HalfVector = float __attribute__((vector_size(8)));
using Double = double __attribute__((vector_size(16)));
using Bits = uint64_t __attribute__((vector_size(16)));

// Returns a * b + c rounded once, on a machine without the instruction. In double the product is exact; the sum is
// rounded to odd (its last bit set when inexact), after which rounding to FP32 gives what one rounding would: Boldo and
// Melquiond, "Emulation of FMA and correctly rounded sums", IEEE Transactions on Computers 57(4), 2008.
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
