// The arguments of GEMMs; quant/gemm/gemm.h says what is computed.
#pragma once

#include "quant/tensor/quantized_tensor.h"
#include "quant/tensor/tensor.h"

namespace nibble {

struct GemmProblem {
  QuantizedTensor a;        // [m, k]; tensor_scale may be f32 [m, 2], one scale a row, if the device's gemm() can
  QuantizedTensor b;        // [n, k]
  Tensor output;            // [m, n], f32 or bf16: a b^T
  bool accumulate = false;  // output (f32) += a b^T, which is rounded to FP32 first
  Tensor scratch = {};      // u8 [gemm_scratch_bytes() or more]; its contents afterwards have no meaning
};

// The properties of a problem on which the choice of a backend depends.
struct GemmShape {
  Format a = Format::bf16, b = Format::bf16;
  int64_t m = 0, n = 0, k = 0;
  bool outer_scales = false;  // either operand has outer scales
  bool row_scales = false;    // every row of `a` has a tensor scale of its own
};

inline bool has_row_scales(const QuantizedTensor& operand) {
  return is_quantized(operand.format) && operand.tensor_scale.elements() > 2;
}

inline GemmShape shape_of(const GemmProblem& problem) {
  return {.a = problem.a.format,
          .b = problem.b.format,
          .m = problem.a.rows,
          .n = problem.b.rows,
          .k = problem.a.inner,
          .outer_scales = !problem.a.outer_scales.empty() || !problem.b.outer_scales.empty(),
          .row_scales = has_row_scales(problem.a)};
}

// A small FP32 matrix product on one thread, for use inside a parallel region (attention heads): c[i, j] (+)= sum over
// k ascending of fma(a[i, k], b[k, j]). Strides are in elements; c is row-major.
struct SmallMatmul {
  const float* a;
  int64_t a_row_stride, a_col_stride;
  const float* b;
  int64_t b_row_stride, b_col_stride;
  float* c;
  int64_t c_row_stride;
  int64_t m, n, k;
  bool accumulate = false;
};

}  // namespace nibble
