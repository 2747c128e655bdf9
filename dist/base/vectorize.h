// NIBBLE_VECTORIZE before a free function compiles it for AVX-512, AVX2 and the baseline, and picks one when the
// program starts. It changes no bits: the build forbids contraction, so a multiply-add is fused only where std::fma is
// written, and the compiler never reorders a sum. A reduction must run over a fixed number of lanes (see LaneSum) to be
// vectorised. The loops must stand in the marked function itself: a function that it calls is compiled for the baseline
// unless it is inlined.
#pragma once

#include <cstddef>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define NIBBLE_VECTORIZE __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define NIBBLE_VECTORIZE
#endif
#define NIBBLE_INLINE inline __attribute__((always_inline))

namespace nibble {

// A sum whose order does not depend on the instruction set: lane i adds elements i, i+16, ...; the lanes are then added
// in a fixed binary tree.
struct LaneSum {
  static constexpr size_t lanes = 16;
  float lane[lanes] = {};

  NIBBLE_INLINE float total() const {
    float sums[lanes];
    for (size_t i = 0; i < lanes; ++i) sums[i] = lane[i];
    for (size_t width = lanes / 2; width > 0; width /= 2) {
      for (size_t i = 0; i < width; ++i) sums[i] += sums[i + width];
    }
    return sums[0];
  }
};

}  // namespace nibble
