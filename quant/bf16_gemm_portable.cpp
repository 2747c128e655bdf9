// BF16 products for any machine.
#include <utility>

#include "quant/bf16_gemm.h"

namespace nibble::cpu {
namespace {

#include "quant/portable_vectors.inl"

using Element = float;

constexpr int64_t members = 2;
constexpr int tile_rows = 4;
constexpr int tile_vectors = 1;
constexpr int64_t depth_pairs = 128;
constexpr int64_t block_rows = 128;
constexpr int64_t block_columns = 128;

inline __attribute__((always_inline)) Vector broadcast(const float* from) {
  return Vector{*from, *from, *from, *from};
}
inline __attribute__((always_inline)) Vector multiply_add(Vector left, Vector right, Vector sum) {
  return fused(left, right, sum);
}
inline __attribute__((always_inline)) UnsignedVector load_words(const uint16_t* from, int64_t count) {
  UnsignedVector words{};
  for (int64_t i = 0; i < count; ++i) words[i] = from[i];
  return words;
}

#include "quant/bf16_gemm_kernels.inl"

}  // namespace

const Bf16Kernels bf16_portable = make_kernels();

}  // namespace nibble::cpu
