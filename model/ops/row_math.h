// Reductions over a row of FP32 numbers, in one order on every instruction set. Inline, for NIBBLE_VECTORIZE functions.
#pragma once

#include <limits>

#include "dist/vectorize.h"
#include "model/ops/vector_math.h"

namespace nibble {

// Rows are read in whole groups of LaneSum::lanes and a rest.
constexpr size_t whole_lanes(size_t count) {
  return count - count % LaneSum::lanes;
}

// The largest number, NaN being passed over; -infinity for none.
NIBBLE_INLINE float row_maximum(const float* row, size_t count) {
  constexpr size_t lanes = LaneSum::lanes;
  float largest[lanes];
  for (float& lane : largest) lane = -std::numeric_limits<float>::infinity();
  const size_t whole = whole_lanes(count);
  for (size_t i = 0; i < whole; i += lanes) {
    for (size_t lane = 0; lane < lanes; ++lane) {
      largest[lane] = row[i + lane] > largest[lane] ? row[i + lane] : largest[lane];
    }
  }
  for (size_t i = whole; i < count; ++i) largest[0] = row[i] > largest[0] ? row[i] : largest[0];
  for (size_t lane = 1; lane < lanes; ++lane) largest[0] = largest[lane] > largest[0] ? largest[lane] : largest[0];
  return largest[0];
}

// Sum of exp(row - shift).
NIBBLE_INLINE float sum_of_exponentials(const float* row, float shift, size_t count) {
  LaneSum sum;
  const size_t whole = whole_lanes(count);
  for (size_t i = 0; i < whole; i += LaneSum::lanes) {
    for (size_t lane = 0; lane < LaneSum::lanes; ++lane) sum.lane[lane] += exp_f32(row[i + lane] - shift);
  }
  for (size_t i = whole; i < count; ++i) sum.lane[i - whole] += exp_f32(row[i] - shift);
  return sum.total();
}

// Replaces the row by exp(row - shift) and returns the sum, the same bits as sum_of_exponentials.
NIBBLE_INLINE float replace_by_exponentials(float* row, float shift, size_t count) {
  LaneSum sum;
  const size_t whole = whole_lanes(count);
  for (size_t i = 0; i < whole; i += LaneSum::lanes) {
    for (size_t lane = 0; lane < LaneSum::lanes; ++lane) {
      const float value = exp_f32(row[i + lane] - shift);
      row[i + lane] = value;
      sum.lane[lane] += value;
    }
  }
  for (size_t i = whole; i < count; ++i) {
    row[i] = exp_f32(row[i] - shift);
    sum.lane[i - whole] += row[i];
  }
  return sum.total();
}

}  // namespace nibble
