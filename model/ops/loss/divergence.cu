#include "model/ops/loss/divergence.h"

#include <limits>

#include "dist/device/launch.cuh"
#include "model/ops/row/device_math.cuh"
#include "model/ops/row/row_sum.cuh"

namespace nibble::cuda {
namespace {

constexpr int rows_of_block = 8;  // one warp a row

// Returns the largest number of a row, ignoring NaN, on every lane.
__device__ float warp_row_maximum(int64_t count, const float* row) {
  float largest = -std::numeric_limits<float>::infinity();
  for (int64_t i = static_cast<int>(threadIdx.x) % warp_lanes; i < count; i += warp_lanes) {
    largest = row[i] > largest ? row[i] : largest;
  }
#pragma unroll
  for (int distance = warp_lanes / 2; distance > 0; distance /= 2) {
    const float other = __shfl_xor_sync(all_lanes, largest, distance);
    largest = other > largest ? other : largest;
  }
  return largest;
}

struct Exponentials {
  const float* row;
  float largest;
  __device__ Pair pair(int64_t i) const { return {one(i), one(i + 1)}; }
  __device__ float one(int64_t i) const { return cuda::exp_f32(row[i] - largest); }
};

struct Products {
  const float* p;
  const float* q;
  float largest_p, largest_q;
  __device__ Pair pair(int64_t i) const { return {one(i), one(i + 1)}; }
  __device__ float one(int64_t i) const {
    return cuda::exp_f32(p[i] - largest_p) * ((p[i] - largest_p) - (q[i] - largest_q));
  }
};

struct Rows {
  const float* p;
  const float* q;
  float* sums;
  int64_t tokens, vocab;
};

__global__ void __launch_bounds__(rows_of_block* warp_lanes) divergence_kernel(Rows rows) {
  const int64_t token = static_cast<int64_t>(blockIdx.x) * rows_of_block + threadIdx.x / warp_lanes;
  if (token >= rows.tokens) return;
  const float* const p = rows.p + token * rows.vocab;
  const float* const q = rows.q + token * rows.vocab;
  const float largest_p = warp_row_maximum(rows.vocab, p);
  const float largest_q = warp_row_maximum(rows.vocab, q);
  const float of_p = warp_row_sum(rows.vocab, Exponentials{p, largest_p});
  const float of_q = warp_row_sum(rows.vocab, Exponentials{q, largest_q});
  const float products = warp_row_sum(rows.vocab, Products{p, q, largest_p, largest_q});
  if (threadIdx.x % warp_lanes != 0) return;
  float* const sums = rows.sums + token * 3;
  sums[0] = of_p;
  sums[1] = of_q;
  sums[2] = products;
}

}  // namespace

void divergence_sums(const DivergenceSums& problem) {
  const Rows rows{.p = problem.p.as<float>(),
                  .q = problem.q.as<float>(),
                  .sums = problem.sums.as<float>(),
                  .tokens = problem.p.rows(),
                  .vocab = problem.p.cols()};
  launch("divergence_sums", divergence_kernel,
         {dim3(narrow<unsigned>(div_ceil<int64_t>(rows.tokens, rows_of_block))), dim3(rows_of_block * warp_lanes)},
         rows);
}

}  // namespace nibble::cuda
