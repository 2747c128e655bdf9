// The GEMM kernels on codes for any machine: correct first, and the definition of the bits that the other levels give.
#include <utility>

#include "quant/format/tile.h"
#include "quant/gemm/cpu/gemm_codes.h"
#include "quant/recipe/operand_spec.h"

namespace nibble::cpu {
namespace {

#define ALWAYS_INLINE inline __attribute__((always_inline))
#include "quant/isa/portable_vectors.inl"
using CodeVector = uint8_t __attribute__((vector_size(16)));
using Halves = uint16_t __attribute__((vector_size(8)));

ALWAYS_INLINE Vector broadcast(float value) {
  return Vector{value, value, value, value};
}
ALWAYS_INLINE IntVector broadcast_int(int32_t value) {
  return IntVector{value, value, value, value};
}
ALWAYS_INLINE UnsignedVector widen(const uint8_t* bytes) {
  return UnsignedVector{bytes[0], bytes[1], bytes[2], bytes[3]};
}
ALWAYS_INLINE Halves narrow(UnsignedVector values) {
  return __builtin_convertvector(values, Halves);
}
ALWAYS_INLINE CodeVector lookup(CodeVector table, CodeVector index) {
  CodeVector result{};
  for (int i = 0; i < 16; ++i) result[i] = table[index[i]];
  return result;
}
template <class Element, class Values>
ALWAYS_INLINE void stream(Element* to, Values values) {
  __builtin_memcpy(to, &values, sizeof values);
}
ALWAYS_INLINE void fence() {}

// The dot product is taken in FP32, which is exact for integers of this size and, on old machines, the faster
// multiplication.
struct FloatDot {
  static constexpr int constants = 1;
  static constexpr double unpacking_cost = 0.1;
  using Sum = Vector;

  static ALWAYS_INLINE Sum next(Sum sum, IntVector left, IntVector right) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      sum += __builtin_convertvector((left >> (8 * i)) & 0xFF, Vector) *
             __builtin_convertvector((right << (24 - 8 * i)) >> 24, Vector);
    }
    return sum;
  }
  static ALWAYS_INLINE Sum first(IntVector left, IntVector right, const Vector (&prepared)[1]) {
    return next(prepared[0], left, right);
  }
  static ALWAYS_INLINE Vector scaled(Sum sum, Vector scale, const Vector (&/*prepared*/)[1]) {
    return sum * scale;
  }
  static ALWAYS_INLINE void prepare(const IntVector (&values)[4], Vector /*scale*/, std::byte* to) {
    Sum bias{};
    for (const IntVector& quad : values) bias = next(bias, broadcast_int(0x0C0C0C0C), quad);
    bias = -bias;
    __builtin_memcpy(to, &bias, sizeof bias);
  }
};

constexpr int kernel_rows = 4;
constexpr int kernel_vectors = 1;
constexpr int rows_at_once = 1;
constexpr int64_t panel_columns = 16;
constexpr int64_t pass_blocks = 32;

#include "quant/gemm/cpu/gemm_codes.inl"

}  // namespace

const CodeKernels code_kernels_portable = make_code_kernels<FloatDot>();

}  // namespace nibble::cpu
