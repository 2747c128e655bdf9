// row_sum() of row_math.h for kernels: the same 64 sums, each in the same order, and added in the same order.
#pragma once

#include <cstdint>

#include "dist/device/launch.cuh"
#include "quant/format/packs.cuh"

namespace nibble::cuda {

constexpr int row_sums = 64;

// Returns the sum over sixteen lanes, which a warp holds twice, in the order of total() in lanes.h.
__device__ __forceinline__ float total_of_lanes(float value) {
#pragma unroll
  for (int distance = 8; distance > 0; distance /= 2) value += __shfl_xor_sync(all_lanes, value, distance);
  return value;
}

struct Pair {
  float even, odd;
};

// Loads two neighbours of a row, in two accesses if rows begin at odd elements.
template <bool aligned, class T>
__device__ __forceinline__ Pair load_neighbours(const T* from) {
  if constexpr (aligned) {
    const auto values = load_floats<2>(from);
    return {values.value[0], values.value[1]};
  } else {
    return {to_float(from[0]), to_float(from[1])};
  }
}

// Computes row_sum() with a whole warp, for terms whose load() is made of load_pairs(): lane l has the sums of elements
// 2l and 2l + 1 of every 64. terms.pair(i) returns the terms of elements i and i + 1; terms.one(i) returns a single
// term. Every lane gets the sum.
template <class Terms>
__device__ float warp_row_sum(int64_t count, const Terms& terms) {
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  Pair sum{};
  const auto include = [&](const Pair& term) {
    sum.even += term.even;
    sum.odd += term.odd;
  };
  int64_t first = 0;
#pragma unroll 8
  for (; first + row_sums <= count; first += row_sums) include(terms.pair(first + 2 * lane));
  if (first + row_sums / 2 <= count) {
    if (lane < warp_lanes / 2) include(terms.pair(first + 2 * lane));
    first += row_sums / 2;
  }
  // The last elements are not paired: sixteen go to the third vector, and as many to the last.
  if (lane >= warp_lanes / 2) {
    const int64_t third = first + lane - warp_lanes / 2;
    if (third < count) sum.even += terms.one(third);
    if (third + warp_lanes / 2 < count) sum.odd += terms.one(third + warp_lanes / 2);
  }
  const float even = sum.even + __shfl_xor_sync(all_lanes, sum.even, warp_lanes / 2);
  const float odd = sum.odd + __shfl_xor_sync(all_lanes, sum.odd, warp_lanes / 2);
  return total_of_lanes(even + odd);
}

}  // namespace nibble::cuda
