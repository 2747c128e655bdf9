// GEMMs of quantised operands: output [m, n] = a b^T with a [m, k] and b [n, k].
//
// nvfp4 x nvfp4 without outer scales: the dot product of two blocks of 16 codes is an exact integer d (in units of
// 1/4); blocks are added in order, c = fma(float(d), scale_a * scale_b, c) in FP32, one rounding a block; then c *
// alpha with alpha = (g_a * g_b) / 4, g being the tensor scales. bf16 x bf16: the sums are those of
// quant/gemm/cpu/packed_matmul.h, pairs of k ascending, the odd member first, subnormal numbers being zero, also where
// the sum is added to the output. All other pairs of formats: c = fma(a_k, b_k, c) in FP32, k ascending, then c * alpha
// with alpha = g_a * g_b (1 in formats without a tensor scale), on values decoded as fl32(fl32(code * block scale) *
// outer scale). That is exact but for the outer scale and, in MX formats, but for values above FP32's largest number,
// which become infinite.
//
// Where operands are rotated without normalisation, alpha has the factor 2^-((a.rotation_bits + b.rotation_bits)/2):
// the bits must add up to an even number, as they do where both are rotated alike.
//
// An operand in tiles (quant/format/tile.h) may be combined with nvfp4 operands without outer scales, in tiles or in
// rows. All other operands lie in rows.
//
// Every row of `a` may have a tensor scale of its own (quant/quantize/quantize_rows.h): on the CPU row r of the result
// is then, bit for bit, the product of a's row r alone; a GPU refuses it.
//
// The bits are the same on every instruction set, for every blocking and thread count. On a GPU the GEMMs of libraries
// differ in the order of the sums; the exact ones do not (docs/gpu.md). alpha has the 24 bits of FP32 but an unbounded
// exponent, and c * alpha is rounded once, so that two tiny tensor scales do not make a zero; where alpha is a normal
// FP32 number nothing differs from computing it in FP32.
#pragma once

#include <string>

#include "dist/device/operator.h"
#include "quant/gemm/gemm_problem.h"

namespace nibble {

NIBBLE_OPERATOR(void gemm(const GemmProblem& problem));

// Who multiplies, and how.
struct GemmDescription {
  std::string library;    // "nibble", "cuBLASLt 13.1.0"
  std::string algorithm;  // "exact, avx2", "native, algorithm 66, tile 24, stages 35"
  bool exact = false;     // the bits are those of the contract above
};
// Describes a GEMM that has run with these operands; its memory may be in use for something else since.
NIBBLE_OPERATOR(GemmDescription describe_gemm(const GemmProblem& problem));

// Returns the bytes of memory that a GEMM needs beside its operands on a device: 0 on the CPU, unless rows have scales.
size_t gemm_scratch_bytes(const GemmShape& shape, DeviceKind device);
Tensor allocate_gemm_scratch(Arena& arena, const GemmShape& shape);

void small_matmul(const SmallMatmul& problem);

namespace cuda {
size_t gemm_scratch_bytes(const GemmShape& shape);
}

}  // namespace nibble
