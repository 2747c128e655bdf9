// A slow and obvious NVFP4 quantiser: the formulas of docs/numerics.md one element at a time, with tables searched in
// double precision instead of bit arithmetic. It shares no code with quant/codec.h.
//
// Each member of Mistakes turns on one plausible error, so that tests can show that their data would notice it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "quant/operand_spec.h"
#include "quant/philox.h"

namespace nibble::test {

struct Mistakes {
  bool swap_nibbles = false;
  bool drop_sign_of_zero = false;
  bool reverse_sign_mask = false;
  bool amax_before_rotation = false;
  bool keep_rotation_in_fp32 = false;
  bool encode_by_quotient = false;  // S_enc / scale instead of 1 / (scale * S_dec)
  bool double_precision = false;    // scales and products in double
  bool e4m3_ties_away = false;
  bool e2m1_ties_away = false;
  bool divide_block_amax_first = false;  // (block_amax / 6) * S_enc
  bool divide_scale_by_six = false;      // S_enc / 6 instead of S_enc * fl32(1/6)
};

struct ReferenceProblem {
  std::vector<float> operand;  // [rows, inner], already transposed
  int64_t rows = 0;
  int64_t inner = 0;
  OperandSpec spec;
  NoiseStream noise;
  Mistakes mistakes;
  uint32_t sign_mask = 0xD7E8;
};

struct ReferenceResult {
  std::vector<uint8_t> codes;   // [rows, inner / 2]
  std::vector<uint8_t> scales;  // [rows, inner / 16]
  float amax = 0;
  float encode = 0;
  float decode = 0;
};

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

inline double reference_e4m3_value(int code) {
  const int exponent = code >> 3;
  const int mantissa = code & 7;
  return exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
}

inline constexpr double reference_e2m1_values[8] = {0, .5, 1, 1.5, 2, 3, 4, 6};

// Index of the nearest entry of an ascending list, the even one (or the upper one) of two at the same distance.
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

inline int reference_e4m3(double value, bool ties_away = false) {
  return nearest_index(std::min(value, 448.0), 127, ties_away, reference_e4m3_value);
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

inline int reference_guarded_scale(float d) {
  const float enlarged = d * 1.0625f;
  if (!(enlarged < 0.015625f)) return reference_e4m3(std::isnan(enlarged) ? 448 : enlarged);
  int code = 0;
  while (reference_e4m3_value(code) < d) ++code;
  return code;
}

// Element `index` of x[16] after `stages` butterflies with strides 1, 2, 4, 8, by their definition. (As a signed sum
// the value is the same, but not the sign of a zero.)
inline float reference_butterfly(const float* x, int index, int stages, uint32_t sign_mask) {
  if (stages == 0) return x[index] * (((sign_mask >> index) & 1u) != 0 ? -0.25f : 0.25f);
  const int stride = 1 << (stages - 1);
  const float low = reference_butterfly(x, index & ~stride, stages - 1, sign_mask);
  const float high = reference_butterfly(x, index | stride, stages - 1, sign_mask);
  return (index & stride) == 0 ? low + high : low - high;
}

inline void reference_rotate(ReferenceProblem& problem) {
  uint32_t mask = problem.sign_mask;
  if (problem.mistakes.reverse_sign_mask) {
    uint32_t reversed = 0;
    for (int i = 0; i < 16; ++i) reversed |= ((mask >> i) & 1u) << (15 - i);
    mask = reversed;
  }
  for (size_t at = 0; at < problem.operand.size(); at += 16) {
    float rounded[16];
    for (size_t i = 0; i < 16; ++i) rounded[i] = reference_bf16(problem.operand[at + i]);
    for (size_t i = 0; i < 16; ++i) {
      const float sum = reference_butterfly(rounded, static_cast<int>(i), 4, mask);
      problem.operand[at + i] = problem.mistakes.keep_rotation_in_fp32 ? sum : reference_bf16(sum);
    }
  }
}

inline float largest_magnitude(const std::vector<float>& values) {
  float largest = 0;
  for (const float value : values) {
    if (std::isnan(value)) return std::numeric_limits<float>::quiet_NaN();
    largest = std::max(largest, std::fabs(value));
  }
  return largest;
}

inline float reference_block_amax(const ReferenceProblem& problem, int64_t row, int64_t block) {
  const bool square = problem.spec.block == BlockShape::square;
  std::vector<float> members;
  for (int64_t r = square ? row / 16 * 16 : row; r < (square ? row / 16 * 16 + 16 : row + 1); ++r) {
    const float* begin = problem.operand.data() + r * problem.inner + block * 16;
    members.insert(members.end(), begin, begin + 16);
  }
  return largest_magnitude(members);
}

// Scale byte of a block and the factor its elements are multiplied by.
struct ReferenceScale {
  int byte = 0;
  double encode = 0;
};
inline ReferenceScale reference_scale(const ReferenceProblem& problem, const ReferenceResult& tensor,
                                      float block_amax) {
  const float largest = std::numeric_limits<float>::max();
  const Mistakes& wrong = problem.mistakes;
  if (wrong.double_precision) {
    const double encode = 2688.0 / tensor.amax;
    const int byte = reference_e4m3(block_amax / 6.0 * encode);
    return {byte, std::min(encode / reference_e4m3_value(byte), double{largest})};
  }
  const float sixth = 1.0f / 6.0f;
  const float multiplier = wrong.divide_scale_by_six ? tensor.encode / 6.0f : tensor.encode * sixth;
  float d = block_amax * multiplier;
  if (wrong.divide_block_amax_first) d = block_amax / 6.0f * tensor.encode;
  if (!(d < largest)) d = largest;
  const int byte =
      problem.spec.round == Rounding::stochastic ? reference_guarded_scale(d) : reference_e4m3(d, wrong.e4m3_ties_away);
  const float scale = static_cast<float>(reference_e4m3_value(byte));
  const float encode = wrong.encode_by_quotient ? tensor.encode / scale : 1.0f / (scale * tensor.decode);
  return {byte, encode < largest ? encode : largest};
}

inline int reference_code(const ReferenceProblem& problem, float element, double encode, int64_t block_index,
                          int position) {
  const double scaled =
      problem.mistakes.double_precision ? element * encode : double{element * static_cast<float>(encode)};
  int code = 0;
  if (problem.spec.round == Rounding::nearest) {
    code = reference_e2m1(scaled, problem.mistakes.e2m1_ties_away);
  } else {
    const PhiloxBlock noise = random_block(problem.noise, static_cast<uint64_t>(block_index));
    const int byte = static_cast<int>((noise.word[position / 4] >> (8 * (position % 4))) & 255u);
    code = reference_e2m1_stochastic(scaled, byte, problem.spec.round == Rounding::stochastic);
  }
  return problem.mistakes.drop_sign_of_zero && code == 8 ? 0 : code;
}

inline void reference_tensor_scale(const ReferenceProblem& problem, ReferenceResult& result) {
  const float ceiling = problem.spec.round == Rounding::stochastic ? 2688.0f * 16.0f / 17.0f : 2688.0f;
  const float quotient = ceiling / result.amax;
  result.encode =
      std::isnan(quotient) ? std::numeric_limits<float>::max() : std::min(quotient, std::numeric_limits<float>::max());
  if (result.amax == 0 || result.encode == 0) result.encode = 1;
  result.decode = 1 / result.encode;
}

inline ReferenceResult reference_quantize(ReferenceProblem problem) {
  ReferenceResult result;
  const float amax_before = largest_magnitude(problem.operand);
  if (problem.spec.rotate != 0) reference_rotate(problem);
  result.amax = problem.mistakes.amax_before_rotation ? amax_before : largest_magnitude(problem.operand);
  reference_tensor_scale(problem, result);
  result.codes.assign(problem.operand.size() / 2, 0);
  const int64_t blocks = problem.inner / 16;
  for (int64_t row = 0; row < problem.rows; ++row) {
    for (int64_t block = 0; block < blocks; ++block) {
      const ReferenceScale scale = reference_scale(problem, result, reference_block_amax(problem, row, block));
      result.scales.push_back(static_cast<uint8_t>(scale.byte));
      for (int position = 0; position < 16; ++position) {
        const int64_t at = row * problem.inner + block * 16 + position;
        const int code = reference_code(problem, problem.operand[static_cast<size_t>(at)], scale.encode,
                                        row * blocks + block, position);
        const bool low = (at % 2 == 0) != problem.mistakes.swap_nibbles;
        uint8_t& byte = result.codes[static_cast<size_t>(at / 2)];
        byte = static_cast<uint8_t>(byte | (low ? code : code << 4));
      }
    }
  }
  return result;
}

}  // namespace nibble::test
