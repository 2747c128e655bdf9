// Reductions over a row of numbers, in one order on every instruction set. They are inline, for NIBBLE_VECTORIZE
// functions.
#pragma once

#include <algorithm>
#include <limits>

#include "dist/base/vectorize.h"
#include "model/ops/row/lanes.h"
#include "model/ops/row/vector_math.h"

namespace nibble {

constexpr size_t row_vectors = 4;  // vectors of sums that do not depend on each other
constexpr size_t row_lanes = row_vectors * lanes;

// Returns the sum of the terms of a row: first over each lane of four vectors in order, then over the vectors, then
// over the lanes. terms.load(i, first, second) loads the terms of elements i to i + 31, in any order; terms.one(i)
// returns a single term.
template <class Terms>
NIBBLE_INLINE float row_sum(size_t count, const Terms& terms) {
  Lanes sum[row_vectors] = {};
  Lanes first;
  Lanes second;
  size_t i = 0;
  for (; i + row_lanes <= count; i += row_lanes) {
    for (size_t v = 0; v < row_vectors; v += 2) {
      terms.load(i + v * lanes, first, second);
      sum[v] += first;
      sum[v + 1] += second;
    }
  }
  if (i + pair_lanes <= count) {
    terms.load(i, first, second);
    sum[0] += first;
    sum[1] += second;
    i += pair_lanes;
  }
  if (i < count) {
    float rest[pair_lanes] = {};
    for (size_t lane = 0; i + lane < count; ++lane) rest[lane] = terms.one(i + lane);
    load(first, rest);
    load(second, rest + lanes);
    sum[2] += first;
    sum[3] += second;
  }
  return total((sum[0] + sum[2]) + (sum[1] + sum[3]));
}

struct RowValues {
  const float* row;
  NIBBLE_INLINE void load(size_t i, Lanes& first, Lanes& second) const {
    nibble::load(first, row + i);
    nibble::load(second, row + i + lanes);
  }
  NIBBLE_INLINE float one(size_t i) const { return row[i]; }
};

// Returns the largest number, ignoring NaN; -infinity for an empty row.
NIBBLE_INLINE float row_maximum(const float* row, size_t count) {
  Lanes highest[row_vectors];
  for (Lanes& value : highest) value = Lanes{} - std::numeric_limits<float>::infinity();
  Lanes value;
  size_t i = 0;
  for (; i + row_lanes <= count; i += row_lanes) {
    for (size_t v = 0; v < row_vectors; ++v) {
      load(value, row + i + v * lanes);
      keep_larger(highest[v], value);
    }
  }
  for (; i + lanes <= count; i += lanes) {
    load(value, row + i);
    keep_larger(highest[0], value);
  }
  for (size_t v = 1; v < row_vectors; ++v) keep_larger(highest[0], highest[v]);
  float result = largest(highest[0]);
  for (; i < count; ++i) result = row[i] > result ? row[i] : result;
  return result;
}

// output[i] = exp(row[i] - shift). `output` may be the row.
NIBBLE_INLINE void write_exponentials(const float* row, float shift, float* output, size_t count) {
#pragma GCC ivdep
  for (size_t i = 0; i < count; ++i) output[i] = exp_f32(row[i] - shift);
}

// Replaces the row by exp(row - shift) and returns the sum.
NIBBLE_INLINE float replace_by_exponentials(float* row, float shift, size_t count) {
  write_exponentials(row, shift, row, count);
  return row_sum(count, RowValues{row});
}

}  // namespace nibble
