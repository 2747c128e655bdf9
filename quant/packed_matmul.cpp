#include "quant/packed_matmul.h"

#include <cmath>

#include "dist/vectorize.h"
#include "quant/codec.h"
#include "quant/flush_subnormals.h"

namespace nibble {
namespace {

int64_t even(int64_t k) {
  return (k + 1) / 2 * 2;
}

// FP32 [k made even, n].
NIBBLE_VECTORIZE void multiply_row(const MatrixBf16& a, int64_t i, const float* b, int64_t n, int64_t k, float* c) {
  for (int64_t pair = 0; pair < k; pair += 2) {
    for (int64_t member = 1; member >= 0; --member) {
      const int64_t l = pair + member;
      const float left =
          l < k ? float_of_bits(static_cast<uint32_t>(a.data[i * a.row_stride + l * a.col_stride].bits) << 16) : 0.0F;
      for (int64_t j = 0; j < n; ++j) c[j] = std::fma(left, b[l * n + j], c[j]);
    }
  }
}

}  // namespace

size_t packed_right_bytes(int64_t k, int64_t n) {
  return (static_cast<size_t>(even(k) * n) * sizeof(float) + 63) / 64 * 64;
}

void pack_right(const MatrixBf16& b, int64_t k, int64_t n, std::byte* packed) {
  float* const values = reinterpret_cast<float*>(packed);
  for (int64_t l = 0; l < even(k); ++l) {
    for (int64_t j = 0; j < n; ++j) {
      values[l * n + j] =
          l < k ? float_of_bits(static_cast<uint32_t>(b.data[l * b.row_stride + j * b.col_stride].bits) << 16) : 0.0F;
    }
  }
}

void packed_matmul(const PackedMatmul& problem) {
  const FlushSubnormals flush;
  for (int64_t i = 0; i < problem.m; ++i) {
    float* const c = problem.c + i * problem.c_row_stride;
    for (int64_t j = 0; j < problem.n && !problem.accumulate; ++j) c[j] = 0.0F;
    multiply_row(problem.a, i, reinterpret_cast<const float*>(problem.b), problem.n, problem.k, c);
  }
}

}  // namespace nibble
