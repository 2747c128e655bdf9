// Vector operations of attention on sixteen FP32 numbers at a time. This header is internal to attention.
#pragma once

#include <cstring>

#include "model/ops/row/lanes.h"
#include "model/ops/row/vector_math.h"

namespace nibble::attention {

// Replaces each x by e^x.
template <int count>
NIBBLE_INLINE void exponentiate(Lanes (&x)[count]) {
  float values[count * lanes];
  std::memcpy(values, x, sizeof values);
  for (float& value : values) value = exp_f32(value);
  std::memcpy(x, values, sizeof values);
}

// output[i] = source[i] * scale, rounded to the storage type.
template <class T>
NIBBLE_INLINE void write_row(const float* source, float scale, T* output, int64_t count) {
  const int64_t whole = count / lanes * lanes;
  Lanes value;
  for (int64_t i = 0; i < whole; i += lanes) {
    load(value, source + i);
    store(output + i, value * scale);
  }
  if (whole == count) return;
  // The last elements go through a vector that is padded with zeros.
  float rest[lanes] = {};
  T rounded[lanes];
  for (int64_t i = whole; i < count; ++i) rest[i - whole] = source[i];
  load(value, rest);
  store(rounded, value * scale);
  for (int64_t i = whole; i < count; ++i) output[i] = rounded[i - whole];
}

}  // namespace nibble::attention
