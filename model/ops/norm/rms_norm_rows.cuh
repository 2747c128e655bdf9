// Terms of the sums of root-mean-square normalisation, for kernels in which a warp computes a row. They are those of
// rms_norm_rows.h.
#pragma once

#include "model/ops/norm/rms_norm_math.h"
#include "model/ops/row/row_sum.cuh"

namespace nibble::cuda {

constexpr int rows_of_block = 8;  // one warp a row

inline LaunchShape warp_a_row(int64_t rows) {
  return {dim3(narrow<unsigned>(div_ceil<int64_t>(rows, rows_of_block))), dim3(rows_of_block * warp_lanes)};
}

template <class T, bool aligned>
struct Squares {
  const T* input;
  __device__ Pair pair(int64_t i) const {
    const Pair x = load_neighbours<aligned>(input + i);
    return {x.even * x.even, x.odd * x.odd};
  }
  __device__ float one(int64_t i) const { return to_float(input[i]) * to_float(input[i]); }
};

template <class T, bool aligned>
struct Products {
  const T* grad_output;
  const T* weight;
  const T* input;
  __device__ Pair pair(int64_t i) const {
    const Pair g = load_neighbours<aligned>(grad_output + i);
    const Pair w = load_neighbours<aligned>(weight + i);
    const Pair x = load_neighbours<aligned>(input + i);
    return {g.even * w.even * x.even, g.odd * w.odd * x.odd};
  }
  __device__ float one(int64_t i) const { return to_float(grad_output[i]) * to_float(weight[i]) * to_float(input[i]); }
};

}  // namespace nibble::cuda
