// BF16 GEMM kernels for any machine.
#include <utility>

#include "quant/format/codec.h"
#include "quant/gemm/cpu/bf16_gemm.h"

namespace nibble::cpu {
namespace {

#include "quant/isa/portable_vectors.inl"

using HalfWords = uint16_t __attribute__((vector_size(16)));
using Element = float;

constexpr int64_t members = 2;
constexpr int register_rows = 4;
constexpr int register_vectors = 2;
constexpr int64_t depth_pairs = 128;
constexpr int64_t block_rows = 128;
constexpr int64_t block_columns = 128;

inline __attribute__((always_inline)) Vector broadcast(const float* from) {
  return Vector{*from, *from, *from, *from};
}
inline __attribute__((always_inline)) Vector multiply_add(Vector left, Vector right, Vector sum) {
  return fused(left, right, sum);
}
inline __attribute__((always_inline)) UnsignedVector load_words(const uint16_t* from) {
  return UnsignedVector{from[0], from[1], from[2], from[3]};
}
inline __attribute__((always_inline)) UnsignedVector load_words(const uint16_t* from, int64_t count) {
  UnsignedVector words{};
  for (int64_t i = 0; i < count; ++i) words[i] = from[i];
  return words;
}
inline __attribute__((always_inline)) HalfWords round_pair(Vector low, Vector high) {
  HalfWords words;
  for (int i = 0; i < lanes; ++i) {
    words[i] = bf16_nearest(low[i]).bits;
    words[lanes + i] = bf16_nearest(high[i]).bits;
  }
  return words;
}

#include "quant/gemm/cpu/bf16_gemm_kernels.inl"

}  // namespace

const Bf16Kernels bf16_portable = make_kernels();

}  // namespace nibble::cpu
