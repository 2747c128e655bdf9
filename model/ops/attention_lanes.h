// Sixteen FP32 numbers at a time, for the NIBBLE_VECTORIZE functions of attention: with vectors of the compiler the
// loops over blocks come out as wide as the machine is, which its own vectoriser does not find. Internal to attention.
//
// Vectors are passed by reference, because passing them by value depends on the instruction set.
#pragma once

#include <bit>
#include <cstring>

#include "dist/vectorize.h"
#include "quant/dtype.h"

namespace nibble::attention {

constexpr int64_t lanes = LaneSum::lanes;
using Lanes = float __attribute__((vector_size(lanes * sizeof(float))));
using UnsignedLanes = uint32_t __attribute__((vector_size(lanes * sizeof(float))));
using IntLanes = int32_t __attribute__((vector_size(lanes * sizeof(float))));

constexpr IntLanes lane_index = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

NIBBLE_INLINE void load(Lanes& value, const float* from) {
  std::memcpy(&value, from, sizeof value);
}
NIBBLE_INLINE void load(Lanes& value, const BFloat16* from) {
  uint16_t __attribute__((vector_size(lanes * sizeof(uint16_t)))) halves;
  std::memcpy(&halves, from, sizeof halves);
  value = reinterpret_cast<Lanes>(__builtin_convertvector(halves, UnsignedLanes) << 16);
}

NIBBLE_INLINE void store(float* place, const Lanes& value) {
  std::memcpy(place, &value, sizeof value);
}
// Rounded as bf16_nearest does.
NIBBLE_INLINE void store(BFloat16* place, const Lanes& value) {
  using Halves = uint16_t __attribute__((vector_size(lanes * sizeof(uint16_t))));
  const UnsignedLanes bits = reinterpret_cast<UnsignedLanes>(value);
  const UnsignedLanes rounded = bits + 0x7FFFu + ((bits >> 16) & 1u);
  const UnsignedLanes chosen = value == value ? rounded : bits | 0x00400000u;
  const Halves halves = __builtin_convertvector(chosen >> 16, Halves);
  std::memcpy(static_cast<void*>(place), &halves, sizeof halves);
}

NIBBLE_INLINE void keep_larger(Lanes& value, const Lanes& other) {
  value = other > value ? other : value;
}

// The lanes are added in the order of LaneSum::total().
NIBBLE_INLINE float total(const Lanes& value) {
  const Lanes eight =
      value + __builtin_shufflevector(value, value, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
  const Lanes four = eight + __builtin_shufflevector(eight, eight, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3);
  const Lanes two = four + __builtin_shufflevector(four, four, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1);
  return two[0] + two[1];
}

NIBBLE_INLINE float largest(const Lanes& value) {
  Lanes all = value;
  keep_larger(all, __builtin_shufflevector(all, all, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
  keep_larger(all, __builtin_shufflevector(all, all, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3));
  keep_larger(all, __builtin_shufflevector(all, all, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1));
  return all[1] > all[0] ? all[1] : all[0];
}

// Each x becomes e^x, for the exponents of probabilities. As exp_f32, but 0 below x = -87 and meaningless above 88: one
// factor less. NaN for NaN. Every step is done for all vectors before the next, because each waits for the one before.
template <int count>
NIBBLE_INLINE void exponentiate(Lanes (&x)[count]) {
  constexpr float log2_e = 0x1.715476p+0f;
  constexpr float ln2_high = 0x1.62e4p-1f;
  constexpr float ln2_low = 0x1.7f7d1cp-20f;
  constexpr float round_to_integer = 0x1.8p+23f;
  constexpr float polynomial[] = {0x1.6d117cp-10f, 0x1.120be2p-7f, 0x1.555518p-5f, 0x1.5554dcp-3f, 0.5f};
  const Lanes bound = Lanes{} - 88.0f;  // where the factor 2^exponent becomes zero
  Lanes shifted[count];
  Lanes q[count];
  for (int i = 0; i < count; ++i) x[i] = x[i] < bound ? bound : x[i];
  for (int i = 0; i < count; ++i) shifted[i] = x[i] * log2_e + round_to_integer;
  for (int i = 0; i < count; ++i) {
    const Lanes exponent = shifted[i] - round_to_integer;
    x[i] = (x[i] - exponent * ln2_high) - exponent * ln2_low;
  }
  for (int i = 0; i < count; ++i) q[i] = x[i] * polynomial[0] + polynomial[1];
  for (int degree = 2; degree < 5; ++degree) {
    for (int i = 0; i < count; ++i) q[i] = q[i] * x[i] + polynomial[degree];
  }
  for (int i = 0; i < count; ++i) q[i] = 1.0f + (x[i] + (x[i] * x[i]) * q[i]);
  for (int i = 0; i < count; ++i) {
    const UnsignedLanes n = reinterpret_cast<UnsignedLanes>(shifted[i]) - std::bit_cast<uint32_t>(round_to_integer);
    x[i] = q[i] * reinterpret_cast<Lanes>((n + 127u) << 23);
  }
}

// place[i] = source[i] * scale, rounded to the storage type.
template <class T>
NIBBLE_INLINE void write_row(const float* source, float scale, T* place, int64_t count) {
  const int64_t whole = count / lanes * lanes;
  Lanes value;
  for (int64_t i = 0; i < whole; i += lanes) {
    load(value, source + i);
    store(place + i, value * scale);
  }
  if (whole == count) return;
  // The rest goes through a vector of its own.
  float rest[lanes] = {};
  T rounded[lanes];
  for (int64_t i = whole; i < count; ++i) rest[i - whole] = source[i];
  load(value, rest);
  store(rounded, value * scale);
  for (int64_t i = whole; i < count; ++i) place[i] = rounded[i - whole];
}

}  // namespace nibble::attention
