// Small floating-point formats by their definition: codes decoded field by field, values rounded by searching all codes
// in double precision. Nothing here is shared with quant/format/codec.h.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

namespace nibble::test {

struct SmallFloat {
  int exponent_bits, mantissa_bits, bias;
  uint32_t count;  // number of finite magnitudes: codes 0 .. count - 1, ascending

  uint32_t sign_bit() const { return 1u << (exponent_bits + mantissa_bits); }
  double value(uint32_t code) const {
    const uint32_t magnitude = code & (sign_bit() - 1);
    const auto exponent = static_cast<int>(magnitude >> mantissa_bits);
    const int steps = 1 << mantissa_bits;
    const int mantissa = static_cast<int>(magnitude) % steps;
    const double unsigned_value = exponent == 0 ? std::ldexp(mantissa, 1 - bias - mantissa_bits)
                                                : std::ldexp(steps + mantissa, exponent - bias - mantissa_bits);
    return (code & sign_bit()) != 0 ? -unsigned_value : unsigned_value;
  }
  double largest() const { return value(count - 1); }

  // Returns the last code whose value is <= `magnitude`.
  uint32_t down(double magnitude) const {
    uint32_t code = 0;
    while (code + 1 < count && value(code + 1) <= magnitude) ++code;
    return code;
  }
  // Returns the first code whose value is >= `magnitude`; the largest where there is none.
  uint32_t up(double magnitude) const {
    uint32_t code = 0;
    while (code + 1 < count && value(code) < magnitude) ++code;
    return code;
  }
  // Rounds to nearest, ties to the even code, saturating, the sign kept.
  uint32_t nearest(double target) const {
    const double magnitude = std::fmin(std::fabs(target), largest());
    const uint32_t low = down(magnitude);
    const uint32_t high = up(magnitude);
    const double below = magnitude - value(low);
    const double above = value(high) - magnitude;
    const uint32_t code = below < above ? low : above < below ? high : low % 2 == 0 ? low : high;
    return code | (std::signbit(target) ? sign_bit() : 0);
  }
};

// Returns a value and its neighbours in FP32, where a wrong tie or threshold shows.
inline std::vector<float> neighbours(float value) {
  const float infinity = std::numeric_limits<float>::infinity();
  return {std::nextafter(value, -infinity), value, std::nextafter(value, infinity)};
}

// Returns FP32 numbers that are not NaN: every BF16 number; every number of the format, every midpoint between two of
// them and where it saturates, each with its neighbours, of either sign; and bit patterns spread over all of FP32.
inline std::vector<float> deciding_inputs(const SmallFloat& format) {
  std::vector<float> inputs;
  const auto add_bits = [&](uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    if (!std::isnan(value)) inputs.push_back(value);
  };
  const auto add = [&](double value) {
    for (const float near : neighbours(static_cast<float>(value))) {
      inputs.push_back(near);
      inputs.push_back(-near);
    }
  };
  for (uint32_t high = 0; high < 0x10000; ++high) add_bits(high << 16);
  for (uint32_t i = 0; i < 0x10000; ++i) add_bits(i * 0x9E3779B9u);
  for (uint32_t code = 0; code < format.count; ++code) {
    add(format.value(code));
    if (code + 1 < format.count) add((format.value(code) + format.value(code + 1)) / 2);
  }
  // The number with which a format with more exponents would go on.
  add(format.largest() + (format.largest() - format.value(format.count - 2)) / 2);
  return inputs;
}

}  // namespace nibble::test
