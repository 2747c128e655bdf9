// Number formats as tables, and roundings as searches of these tables in double precision. It shares no code with
// quant/format/codec.h.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

namespace nibble::test {

inline float reference_bf16(float value) {
  if (!std::isfinite(value)) return value;
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  const uint32_t low = bits & 0xFFFFu;
  uint32_t high = bits >> 16;
  if (low > 0x8000u || (low == 0x8000u && (high & 1u) != 0)) ++high;
  bits = high << 16;
  std::memcpy(&value, &bits, 4);
  return value;
}

inline constexpr double reference_e2m1_values[8] = {0, .5, 1, 1.5, 2, 3, 4, 6};

inline double reference_e2m1_value(int code) {
  return (code & 8) != 0 ? -reference_e2m1_values[code & 7] : reference_e2m1_values[code];
}

// Returns the values of codes 0 .. 126.
inline double reference_e4m3_value(int code) {
  const int exponent = code >> 3;
  const int mantissa = code & 7;
  return exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
}

// Returns the values of codes 0 .. 123.
inline double reference_e5m2_value(int code) {
  const int exponent = code >> 2;
  const int mantissa = code & 3;
  return exponent == 0 ? std::ldexp(mantissa, -16) : std::ldexp(4 + mantissa, exponent - 17);
}

inline double reference_e8m0_value(int code) {
  return std::ldexp(1, code - 127);
}

// Returns the index of the nearest entry of an ascending list, the even one (or the upper one) of two at the same
// distance.
template <class Value>
int nearest_index(double target, int count, bool ties_away, Value value) {
  int best = 0;
  for (int i = 1; i < count; ++i) {
    const double distance = std::fabs(value(i) - target);
    const double least = std::fabs(value(best) - target);
    if (distance < least || (distance == least && (ties_away || i % 2 == 0))) best = i;
  }
  return best;
}

// Rounds a block scale, value >= 0, to nearest.
inline int reference_e4m3(double value, bool ties_away = false) {
  return nearest_index(std::min(value, 448.0), 127, ties_away, reference_e4m3_value);
}

inline int reference_signed_e4m3(double value) {
  return reference_e4m3(std::fabs(value)) | (std::signbit(value) ? 0x80 : 0);
}

inline int reference_signed_e5m2(double value) {
  const int magnitude = nearest_index(std::min(std::fabs(value), 57344.0), 124, false, reference_e5m2_value);
  return magnitude | (std::signbit(value) ? 0x80 : 0);
}

inline int reference_e2m1(double value, bool ties_away = false) {
  if (std::isnan(value)) return 7;
  const int code =
      nearest_index(std::min(std::fabs(value), 6.0), 8, ties_away, [](int i) { return reference_e2m1_values[i]; });
  return code | (std::signbit(value) ? 8 : 0);
}

inline int reference_e2m1_stochastic(double value, int byte, bool centred) {
  if (std::isnan(value)) return 7;
  const double magnitude = std::min(std::fabs(value), 6.0);
  int low = 7;
  while (reference_e2m1_values[low] > magnitude) --low;
  const double step = low == 7 ? 1 : reference_e2m1_values[low + 1] - reference_e2m1_values[low];
  const double fraction = (magnitude - reference_e2m1_values[low]) / step;
  const bool up = centred ? (byte + 0.5) / 256 < fraction : byte / 256.0 + fraction >= 1;
  return (low + (up ? 1 : 0)) | (std::signbit(value) ? 8 : 0);
}

// Rounds stochastically with `bits` random bits: up when they and the covered part of the step, cut to so many bits,
// carry to a whole one.
inline int reference_e4m3_stochastic(float value, uint32_t noise, int bits) {
  const double magnitude = std::min(double{value}, 448.0);
  int low = 126;
  while (reference_e4m3_value(low) > magnitude) --low;
  if (low == 126) return low;
  const double step = reference_e4m3_value(low + 1) - reference_e4m3_value(low);
  const double covered = std::floor(std::ldexp((magnitude - reference_e4m3_value(low)) / step, bits));
  return low + (covered + noise >= std::ldexp(1, bits) ? 1 : 0);
}

// Returns the smallest E4M3 number that is large enough.
inline int reference_guarded_scale(float d) {
  const float enlarged = d * 1.0625f;
  if (!(enlarged < 0.015625f)) return reference_e4m3(std::isnan(enlarged) ? 448 : enlarged);
  int code = 0;
  while (reference_e4m3_value(code) < d) ++code;
  return code;
}

// These return the largest power of two that is not above the value, and the smallest that is not below; within 2^-127
// .. 2^127.
inline int reference_e8m0_down(double value) {
  int code = 254;
  while (code > 0 && reference_e8m0_value(code) > value) --code;
  return code;
}
inline int reference_e8m0_up(double value) {
  int code = 0;
  while (code < 254 && reference_e8m0_value(code) < value) ++code;
  return code;
}

}  // namespace nibble::test
