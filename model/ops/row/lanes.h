// Sixteen FP32 numbers at a time, for NIBBLE_VECTORIZE functions. With vectors of the compiler, loops use the whole
// width of the machine also where its auto-vectoriser does not find them, as in sums over a fixed number of lanes.
//
// Vectors are passed by reference, because passing them by value depends on the instruction set.
#pragma once

#include <cstdint>
#include <cstring>

#include "dist/base/vectorize.h"
#include "quant/format/dtype.h"

namespace nibble {

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

NIBBLE_INLINE void store(float* to, const Lanes& value) {
  std::memcpy(to, &value, sizeof value);
}

// Sets the upper halves of `bits` to `value` rounded as bf16_nearest does; the lower halves are undefined.
NIBBLE_INLINE void round_upper_halves(UnsignedLanes& bits, const Lanes& value) {
  bits = reinterpret_cast<UnsignedLanes>(value);
  const UnsignedLanes rounded = bits + 0x7FFFu + ((bits >> 16) & 1u);
  bits = value == value ? rounded : bits | 0x00400000u;
}
NIBBLE_INLINE void store(BFloat16* to, const Lanes& value) {
  UnsignedLanes bits;
  round_upper_halves(bits, value);
  const auto halves = __builtin_convertvector(bits >> 16, uint16_t __attribute__((vector_size(lanes * 2))));
  std::memcpy(static_cast<void*>(to), &halves, sizeof halves);
}

// Loads and stores the even and the odd elements of 32 apart: BF16 neighbours are the halves of 32 bits, so no shuffles
// are needed.
constexpr size_t pair_lanes = 2 * lanes;
NIBBLE_INLINE void load_pairs(Lanes& even, Lanes& odd, const BFloat16* from) {
  UnsignedLanes bits;
  std::memcpy(&bits, from, sizeof bits);
  even = reinterpret_cast<Lanes>(bits << 16);
  odd = reinterpret_cast<Lanes>(bits & 0xFFFF0000u);
}
NIBBLE_INLINE void load_pairs(Lanes& even, Lanes& odd, const float* from) {
  Lanes first;
  Lanes second;
  load(first, from);
  load(second, from + lanes);
  even = __builtin_shufflevector(first, second, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  odd = __builtin_shufflevector(first, second, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
}
NIBBLE_INLINE void store_pairs(BFloat16* to, const Lanes& even, const Lanes& odd) {
  UnsignedLanes low;
  UnsignedLanes high;
  round_upper_halves(low, even);
  round_upper_halves(high, odd);
  const UnsignedLanes bits = (low >> 16) | (high & 0xFFFF0000u);
  std::memcpy(static_cast<void*>(to), &bits, sizeof bits);
}
NIBBLE_INLINE void store_pairs(float* to, const Lanes& even, const Lanes& odd) {
  store(to, __builtin_shufflevector(even, odd, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23));
  store(to + lanes, __builtin_shufflevector(even, odd, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31));
}

NIBBLE_INLINE void keep_larger(Lanes& value, const Lanes& other) {
  value = other > value ? other : value;
}

// Returns the sum of the lanes, added in the order of LaneSum::total().
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

}  // namespace nibble
