// Element-wise functions of rows, for NIBBLE_VECTORIZE functions.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "dist/base/vectorize.h"
#include "model/ops/row/storage.h"

namespace nibble {
namespace detail {

// BF16 neighbours are read and written as one number of 32 bits, so no shuffles are needed.
NIBBLE_INLINE uint32_t load_pair(const BFloat16* from) {
  uint32_t bits;
  std::memcpy(&bits, from, sizeof bits);
  return bits;
}
NIBBLE_INLINE float low_of(uint32_t pair) {
  return std::bit_cast<float>(pair << 16);
}
NIBBLE_INLINE float high_of(uint32_t pair) {
  return std::bit_cast<float>(pair & 0xFFFF0000u);
}
// Returns the bits of an FP32 number whose upper half is what bf16_nearest returns; the lower half is undefined.
NIBBLE_INLINE uint32_t rounded_bits(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return value == value ? bits + 0x7FFFu + ((bits >> 16) & 1u) : bits | 0x00400000u;
}
NIBBLE_INLINE void store_pair(BFloat16* to, float low, float high) {
  const uint32_t bits = (rounded_bits(low) >> 16) | (rounded_bits(high) & 0xFFFF0000u);
  std::memcpy(static_cast<void*>(to), &bits, sizeof bits);
}

}  // namespace detail

// output[i] = function(inputs[i]...), rounded once. The output may be an input. The function's operator() must be
// NIBBLE_INLINE.
template <class Function, class... Inputs>
NIBBLE_INLINE void map_row(size_t count, float* output, const Function& function, const Inputs*... inputs) {
#pragma GCC ivdep
  for (size_t i = 0; i < count; ++i) output[i] = function(inputs[i]...);
}

template <class Function, class... Inputs>
NIBBLE_INLINE void map_row(size_t count, BFloat16* output, const Function& function, const Inputs*... inputs) {
  using namespace detail;
#pragma GCC ivdep
  for (size_t i = 0; i < count / 2; ++i) {
    store_pair(output + 2 * i, function(low_of(load_pair(inputs + 2 * i))...),
               function(high_of(load_pair(inputs + 2 * i))...));
  }
  if (count % 2 != 0) store(output[count - 1], function(to_float(inputs[count - 1])...));
}

// Computes two outputs at once: function(first, second, inputs...) sets both. No output may be an input.
template <class Function, class... Inputs>
NIBBLE_INLINE void map_row_to_two(size_t count, float* first, float* second, const Function& function,
                                  const Inputs*... inputs) {
#pragma GCC ivdep
  for (size_t i = 0; i < count; ++i) function(first[i], second[i], inputs[i]...);
}

template <class Function, class... Inputs>
NIBBLE_INLINE void map_row_to_two(size_t count, BFloat16* first, BFloat16* second, const Function& function,
                                  const Inputs*... inputs) {
  using namespace detail;
#pragma GCC ivdep
  for (size_t i = 0; i < count / 2; ++i) {
    float low[2];
    float high[2];
    function(low[0], low[1], low_of(load_pair(inputs + 2 * i))...);
    function(high[0], high[1], high_of(load_pair(inputs + 2 * i))...);
    store_pair(first + 2 * i, low[0], high[0]);
    store_pair(second + 2 * i, low[1], high[1]);
  }
  if (count % 2 == 0) return;
  float results[2];
  function(results[0], results[1], to_float(inputs[count - 1])...);
  store(first[count - 1], results[0]);
  store(second[count - 1], results[1]);
}

// Prefetches a piece of a row. Rows that are read in two streams at once, such as gate and up, are more than the
// processor predicts by itself.
template <class T>
NIBBLE_INLINE void prefetch(const T* from, size_t count) {
#if defined(__GNUC__)
  constexpr size_t line = 64;  // bytes
  for (size_t i = 0; i < count; i += line / sizeof(T)) __builtin_prefetch(from + i);
#endif
}

}  // namespace nibble
