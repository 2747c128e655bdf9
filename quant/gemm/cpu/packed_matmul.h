// A small BF16 matrix product on one thread, for use inside a parallel region (attention heads): c = a b with BF16
// operands and FP32 sums. The right operand is packed once and used for many products.
//
// The sums of c[i, j] run over k in pairs, the odd member first: c = fma(a[i, 2p+1], b[2p+1, j], c), then c = fma(a[i,
// 2p], b[2p, j], c), with subnormal inputs and results treated as zero, as one VDPBF16PS does. An odd k is filled up
// with zeros. The bits are the same on every instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/format/dtype.h"

namespace nibble {

struct MatrixBf16 {
  const BFloat16* data;
  int64_t row_stride, col_stride;  // elements
};

// Returns the bytes of a packed right operand [k, n], whose memory is aligned to 64 bytes.
size_t packed_right_bytes(int64_t k, int64_t n);
void pack_right(const MatrixBf16& b, int64_t k, int64_t n, std::byte* packed);

struct PackedMatmul {
  MatrixBf16 a;        // [m, k]
  const std::byte* b;  // packed [k, n]
  float* c;            // [m, n]
  int64_t c_row_stride;
  int64_t m, n, k;
  bool accumulate = false;  // the sums start from c instead of zero
};
void packed_matmul(const PackedMatmul& problem);

}  // namespace nibble
